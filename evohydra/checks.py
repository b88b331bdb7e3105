"""Settings are checked against the types of what takes them, before anything is loaded.

A parameter's annotation says it all: `population: Annotated[int, Ge(2)] | None` refuses 1, 2.5, "many" and true, by the
name of the setting.
"""

import inspect
import json
import pkgutil
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, TypeAdapter, ValidationError

Count = Annotated[int, Ge(1)]  # genomes, examples, layers: at least one
Natural = Annotated[int, Ge(0)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
CountOrAuto = Count | Literal["auto"]
Positive = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0), Le(1)]

PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}
BOUNDS = {Ge: ("at least", "ge"), Gt: ("more than", "gt"), Le: ("at most", "le"), Lt: ("less than", "lt")}
STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


@dataclass(frozen=True)
class Words:
    """What an annotated type is called in messages, where its parts do not say it."""

    words: str


def check_settings(prefix: str, taker: Callable[..., object], settings: Mapping[str, object]) -> None:
    """ValueError, which names the key, for a setting under `prefix` that `taker`, a function or class, does not take.

    Values that are made of others (`_target_`), and parameters without an annotation, are not looked at here.
    """
    parameters, takes_all = _parameters(taker)
    for name, value in settings.items():
        key = f"{prefix}.{name}".lstrip(".")
        if name.startswith("_") and name.endswith("_"):  # Hydra's own: _target_, _partial_
            continue
        if name not in parameters and not takes_all:
            raise ValueError(f"{key}: there is no such setting; known are {sorted(parameters)}")
        kind = parameters.get(name, inspect.Parameter.empty)
        if kind is not inspect.Parameter.empty and not _is_made(value):
            check(key, kind, value)


def check_fields(prefix: str, instance: object, but: Sequence[str] = ()) -> None:
    """The same for the fields of a dataclass, besides those in `but`."""
    fields = get_type_hints(type(instance), include_extras=True)
    check_settings(prefix, type(instance), {name: getattr(instance, name) for name in fields if name not in but})


def check(key: str, kind: Any, value: object) -> None:
    """ValueError, which names `key`, unless `value`, of a yaml, is of the type `kind`. Lists may be tuples."""
    try:
        TypeAdapter(kind, config=STRICT).validate_json(json.dumps(value))
    except ValidationError as error:
        raise ValueError(f"{key}: expected {described(kind)}, got {value!r}") from error


def check_below(settings: Mapping[str, object], prefix: str = "") -> None:
    """`check_settings` for everything in `settings` that names what takes it (`_target_`), however deep."""
    target = settings.get("_target_")
    if isinstance(target, str) and (taker := _resolved(target)) is not None:
        check_settings(prefix, taker, settings)
    for key, value in settings.items():
        if isinstance(value, Mapping):
            check_below(value, f"{prefix}.{key}".lstrip("."))


def described(kind: Any) -> str:
    """A type in words: "a whole number of at least 1, or null"."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated and isinstance(inside[-1], Words):
        return inside[-1].words
    if origin is Annotated:
        bounds = [f"{words} {getattr(bound, at)}" for bound in inside[1:] for words, at in [BOUNDS[type(bound)]]]
        return f"{described(inside[0])} of {' and '.join(bounds)}"
    if origin in (Union, types.UnionType, Literal):
        *most, last = _alternatives(kind)
        return f"{', '.join(most)} or {last}" if most else last
    if kind in PLAIN:
        return PLAIN[kind]
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return f"a mapping ({described(inside[1])} each)" if inside else "a mapping"
    if inspect.isclass(origin) and issubclass(origin, Iterable):
        return f"a list ({described(inside[0])} each)" if inside else "a list"
    return f"what is described by {kind}"


def _alternatives(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return [str(each) for each in get_args(kind)]
    if get_origin(kind) in (Union, types.UnionType):
        return [words for each in get_args(kind) for words in _alternatives(each)]
    return [described(kind)]


def _is_made(value: object) -> bool:
    """Whether something in `value` is made by what its `_target_` names."""
    if not isinstance(value, Mapping):
        return isinstance(value, list) and any(map(_is_made, value))
    return "_target_" in value or any(map(_is_made, value.values()))


def _parameters(taker: Callable[..., object]) -> tuple[dict[str, Any], bool]:
    """The annotated type of each parameter by name, and whether it takes others too.

    A constructor that hands on what it does not know takes what those of its bases take.
    """
    classes = taker.__mro__ if inspect.isclass(taker) else ()
    makers = [vars(each)["__init__"] for each in classes if "__init__" in vars(each)] or [taker]
    found: dict[str, Any] = {}
    for maker in makers:
        parameters = inspect.signature(maker).parameters.values()
        found = {each.name: each.annotation for each in parameters if each.kind is not each.VAR_KEYWORD} | found
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            return {name: kind for name, kind in found.items() if name != "self"}, False
    return {name: kind for name, kind in found.items() if name != "self"}, True


def _resolved(target: str) -> Callable[..., object] | None:
    """The function or class of this name; None where there is none, which those who call it will say."""
    try:
        found: Callable[..., object] = pkgutil.resolve_name(target)
        inspect.signature(found)
    except (ImportError, AttributeError, ValueError, TypeError):
        return None
    return found
