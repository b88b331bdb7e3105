"""What files may name: our own parts by a short name, and code from outside only where the user has allowed it."""

import pkgutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from evohydra.checks import NOTHING


@dataclass(frozen=True)
class Registry:
    """Parts of one `kind` ("family") by the names that files give them.

    places: name -> where the class is, "package.module.Class". former: a place as earlier versions wrote it -> name.
    """

    kind: str
    places: Mapping[str, str]
    former: Mapping[str, str] = field(default_factory=dict)

    def name_of(self, made: object) -> str:
        """The name for files of an instance: the registered one, or its class's place where it is from outside."""
        place = f"{type(made).__module__}.{type(made).__qualname__}"
        return next((name for name, known in self.places.items() if known == place), place)

    def place_of(self, name: str) -> str:
        """Where the class of a registered name is."""
        return self.places[name]

    def check(self, name: str, allowed: Collection[str] = ()) -> None:
        """ValueError for a name from a file that is not ours, and in no module that the user has `allowed`."""
        if self._own(name) is None:
            check_allowed(self.kind, name, sorted(self.places), allowed)

    def make(self, name: str, allowed: Collection[str] = (), settings: Mapping[str, object] = NOTHING) -> object:
        """An instance of the class that a file calls `name`, made with `settings`.

        Nothing is imported but our own modules and those that `allowed` names. Raises ValueError for other names.
        """
        self.check(name, allowed)
        try:
            return pkgutil.resolve_name(self._own(name) or name)(**settings)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{self.kind}: {name!r} could not be made: {error}") from error

    def _own(self, name: str) -> str | None:
        """Where our own class of this name is, which earlier versions gave as its place."""
        by_place = {place: place for place in self.places.values()}
        return self.places.get(name) or by_place.get(name) or self.places.get(self.former.get(name, ""))


def check_allowed(kind: str, name: str, known: Collection[str], allowed: Collection[str]) -> None:
    """ValueError unless `name`, "package.module:function" or "package.module.Class", is in a module of `allowed`.

    A package stands for the modules in it.
    """
    module = module_of(name)
    if not any(module == each or module.startswith(f"{each}.") for each in allowed if each):
        outside = f"; if you have read and trust the code of {module!r}, say --allow {module}" if module else ""
        raise ValueError(f"{kind}: expected one of {', '.join(known)}, got {name!r}{outside}")


def module_of(name: str) -> str:
    """The module of "package.module:function" or "package.module.Class"; empty for a plain word."""
    return name.partition(":")[0] if ":" in name else name.rpartition(".")[0]
