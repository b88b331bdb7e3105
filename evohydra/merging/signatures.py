"""What the functions of merge methods say of their parameters, read from their files: torch is not loaded for it."""

import ast
import functools
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

METHODS = Path(__file__).parent / "methods"
OUT, STREAMS, STATISTICS = "out", "streams", "statistics"
OF, FACTORS, PRODUCTS = "of", "factors", "products"  # an option of merges of adapters by any method
KINDS = {float: "a finite number", int: "a whole number", bool: "true or false", str: "a word"}
BY_NAME = {kind.__name__: kind for kind in KINDS}
BOOSTED = re.compile(r"^(\w+) = boosted\((\w+)\)$", re.MULTILINE)  # a method on top of another one: methods/boosting.py


class Takes(Protocol):
    """What a merge method takes of genes and options, and which of them it has to be given."""

    @property
    def parameters(self) -> frozenset[str]:
        """The names of all."""
        ...

    @property
    def required(self) -> frozenset[str]:
        """Those without a default."""
        ...

    def check(self, name: str, value: object, where: str) -> None:
        """ValueError, naming `where` it stands, for a value that the parameter `name` cannot have."""
        ...


@dataclass(frozen=True)
class Signature:
    """What a method's file says: its parameters, those without a default, those with a value for each model, types."""

    parameters: frozenset[str]
    required: frozenset[str]
    per_model: frozenset[str]
    kinds: Mapping[str, type]

    def check(self, name: str, value: object, where: str) -> None:
        """As `check_kind`."""
        check_kind(self.kinds.get(name, object), value, where, several=name in self.per_model)


def check_kind(kind: type, value: object, where: str, *, several: bool) -> None:
    """ValueError, naming `where` it stands, for a `value` of another kind, or, of `several`, one that is.

    A number is finite; whole ones are numbers too, and 0 and 1 are false and true.
    """
    for each in value if several and isinstance(value, tuple | list) else (value,):
        number = isinstance(each, int | float) and not isinstance(each, bool) and abs(each) <= sys.float_info.max
        whole = number and isinstance(each, int)
        fits = {float: number, int: whole, bool: each in (True, False)}.get(kind, isinstance(each, kind))
        if not fits:
            raise ValueError(f"{where}: expected {KINDS.get(kind, kind.__name__)}, got {each!r}")


def check_of(value: object) -> None:
    """ValueError for a value of the option `of` that there is not."""
    if value not in (FACTORS, PRODUCTS):
        raise ValueError(f"of: expected {PRODUCTS} or {FACTORS} (of adapters), got {value!r}")


@functools.cache
def signature_of(name: str) -> Signature | None:
    """That of one of our own methods; None for one from outside (package.module:function). ValueError for another."""
    if ":" in name:
        return None
    texts = [file.read_text() for file in sorted(METHODS.glob("*.py"))]
    boosted = {made: inner for text in texts for made, inner in BOOSTED.findall(text)}
    if name in boosted and (inner := signature_of(boosted[name])) is not None:
        return replace(inner, parameters=inner.parameters | {"boost"}, kinds={**inner.kinds, "boost": float})
    likely = [text for text in texts if f"\ndef {name}(" in text]
    for function in _methods(likely):
        if function.name == name:
            return _signature(function)
    raise no_such_method(name, sorted([*boosted, *(each.name for each in _methods(texts))]))


def no_such_method(name: str, known: Iterable[str]) -> ValueError:
    """What to say of a name that no method has."""
    return ValueError(
        f"merge method {name!r}: there is none of that name, known are {', '.join(known)}; one of your own is "
        "package.module:function"
    )


def _methods(texts: Iterable[str]) -> list[ast.FunctionDef]:
    """The functions in files that are methods, and not what computes parameters of others."""
    trees = [ast.parse(text) for text in texts]
    found = [each for tree in trees for each in tree.body if isinstance(each, ast.FunctionDef)]
    providers = {ast.unparse(given.value) for each in found for call in _calls(each) for given in call.keywords}
    return [each for each in found if _is_method(each) and each.name not in providers]


def _is_method(function: ast.FunctionDef) -> bool:
    positional = [each.arg for each in function.args.args]
    returns = "" if function.returns is None else ast.unparse(function.returns)
    return positional == ["base", "models"] and returns == "Tensor" and not function.name.startswith("_")


def _calls(function: ast.FunctionDef) -> list[ast.Call]:
    """Decorators with arguments: `once(...)`."""
    return [each for each in function.decorator_list if isinstance(each, ast.Call)]


def _signature(function: ast.FunctionDef) -> Signature:
    supplied = {OUT, STREAMS, STATISTICS, *(each.arg for call in _calls(function) for each in call.keywords)}
    defaults = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    own = {each.arg: (each, default) for each, default in defaults if each.arg not in supplied}
    types = {name: ast.unparse(each.annotation) if each.annotation else "" for name, (each, _) in own.items()}
    several = {name: kind.removeprefix("Sequence[").removesuffix("]") for name, kind in types.items()}
    return Signature(
        parameters=frozenset(own),
        required=frozenset(name for name, (_, default) in own.items() if default is None),
        per_model=frozenset(name for name, kind in types.items() if kind.startswith("Sequence[")),
        kinds={name: BY_NAME.get(kind, object) for name, kind in several.items()},
    )
