"""What evohydra uses of other libraries although they do not promise to keep it.

Each use stands in a module that has `PARTS`, a table of names with the version that it was written against. The upper
bounds in pyproject.toml follow these versions; `tests/test_private_parts.py` looks up every name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version


@dataclass(frozen=True)
class PrivateParts:
    """The attributes `names` of `owner`, "module" or "module:Class", in the `tested` version of `library`."""

    library: str
    tested: str
    owner: str
    names: tuple[str, ...]

    def missing(self, found: object) -> Iterator[str]:
        """A sentence for each of the names that `found`, the owner as it is installed, does not have."""
        for name in self.names:
            if not hasattr(found, name):
                yield (
                    f"{self.library} {version(self.library)} is installed, evohydra was written against "
                    f"{self.library} {self.tested}: {self.owner} has no {name!r} any more, which evohydra uses"
                )
