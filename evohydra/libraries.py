"""Other libraries: those that only some parts need, and what is used of others although they do not promise to keep it.

Each use of a private part stands in a module that has `PARTS`, a table of names with the version that it was written
against. The upper bounds in pyproject.toml follow these versions; `tests/test_private_parts.py` looks up every name.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any


def optional(module: str, wanted_by: str, install: str, otherwise: str = "") -> Any:
    """Import `module`, or raise a ValueError that says what to `install`, and what to do `otherwise`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        quoted = f"'{install}'" if "[" in install else install  # shells read brackets
        raise ValueError(
            f"{wanted_by}: expected the package {install} to be installed, got no module {error.name}; "
            f"run `pip install {quoted}`{otherwise}"
        ) from error


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
