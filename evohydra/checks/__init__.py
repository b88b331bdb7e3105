"""Settings are checked against the types of what takes them, before anything is loaded.

A parameter's annotation says it all: `population: Annotated[int, Ge(2)] | None` refuses 1, 2.5, "many" and true, by the
name of the setting.
"""

import functools
import inspect
import json
import pkgutil
import re
import reprlib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, TypeAdapter, ValidationError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Count = Annotated[int, Ge(1)]  # genomes, examples, layers: at least one
Few = Annotated[int, Ge(1), Le(1000)]  # of what makes a genome longer
Natural = Annotated[int, Ge(0)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
CountOrAuto = Count | Literal["auto"]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]

PLAIN_NAME = re.compile(r"\w[\w.+@ -]{0,99}")
PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}
BOUNDS = {Ge: ("at least", "ge"), Gt: ("more than", "gt"), Le: ("at most", "le"), Lt: ("less than", "lt")}
NOTHING: Mapping[str, Any] = types.MappingProxyType({})
STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


Made = TypeVar("Made")
Taker = TypeVar("Taker", bound=Callable[..., object])
Ahead = Callable[[str, Mapping[str, object]], None]  # the key under which settings stand, and the settings
_AHEAD: dict[Callable[..., object], Ahead] = {}


def checked_by(check_ahead: Ahead) -> Callable[[Taker], Taker]:
    """Declare what looks at the settings of a function or class beyond their types: quickly, before anything is loaded.

    ValueError for what cannot work.
    """

    def declare(taker: Taker) -> Taker:
        _AHEAD[taker] = check_ahead
        return taker

    return declare


@dataclass(frozen=True)
class Words:
    """What an annotated type is called in messages, where its parts do not say it."""

    words: str


def check_settings(
    prefix: str, taker: Callable[..., object], settings: Mapping[str, object], named: bool = False
) -> None:
    """ValueError, which names the key, for a setting under `prefix` that `taker`, a function or class, does not take.

    named: only settings that a signature names are known, though the taker swallows others (`**kwargs`) as well.
    Values that are made of others (`_target_`), and parameters without an annotation, are not looked at here.
    """
    parameters, takes_all = _parameters(taker)
    for name, value in settings.items():
        key = f"{prefix}.{name}".lstrip(".")
        if _of_hydra(name):
            continue
        if name not in parameters and (named or not takes_all):
            raise ValueError(f"{key}: there is no such setting; known are {sorted(parameters)}")
        kind = parameters.get(name, inspect.Parameter.empty)
        if kind is not inspect.Parameter.empty and not _is_made(value):
            check(key, kind, value)


def _of_hydra(name: str) -> bool:
    """Whether a setting is Hydra's own: _target_, _partial_."""
    return name.startswith("_") and name.endswith("_")


def checked(prefix: str, kind: Callable[..., Made], settings: Mapping[str, object]) -> Made:
    """A `kind` of these settings, once they are looked at: ValueError as by `check_settings`."""
    check_settings(prefix, kind, settings)
    return kind(**settings)


def check_fields(prefix: str, instance: "DataclassInstance", but: Sequence[str] = ()) -> None:
    """The same for the fields of a dataclass, besides those in `but`."""
    values = {each.name: getattr(instance, each.name) for each in fields(instance) if each.name not in but}
    check_settings(prefix, type(instance), values)


def check(key: str, kind: Any, value: object) -> None:
    """ValueError, which names `key`, unless `value`, of a yaml, is of the type `kind`. Lists may be tuples."""
    try:
        _adapter(kind).validate_json(json.dumps(value))
    except (ValidationError, TypeError, ValueError, RecursionError) as error:  # what is no JSON, and what is too deep
        raise ValueError(f"{key}: expected {described(kind)}, got {shown(value)}") from error


@functools.lru_cache(maxsize=1024)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=STRICT)


def check_entries(
    where: str, data: object, required: Mapping[str, Any], optional: Mapping[str, Any] = NOTHING
) -> Mapping[str, object]:
    """`data`, of a file, as a mapping with all `required` and no other keys than those and the `optional` ones.

    Both say the type of each; `object` is for what is looked at elsewhere. ValueError, which names the key below
    `where`, for all else.
    """
    known = {**required, **optional}
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}: expected a mapping with {_listed(known)}, got {shown(data)}")
    if absent := [key for key in required if key not in data]:
        raise ValueError(f"{where}: expected a value for {_listed(absent)}, got none")
    if unknown := [key for key in data if key not in known]:
        raise ValueError(f"{where}: expected no other keys than {_listed(known)}, got {shown(unknown)}")
    for key, value in data.items():
        if known[key] is not object:
            check(f"{where}.{key}", known[key], value)
    return data


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def shown(value: object) -> str:
    """`repr` of a value from a file, of bounded length."""
    bounded = reprlib.Repr()
    bounded.maxlevel, bounded.maxstring, bounded.maxother = 3, 120, 120
    bounded.maxlist = bounded.maxdict = bounded.maxtuple = 8
    return bounded.repr(value)


def check_below(settings: Mapping[str, object], prefix: str = "") -> None:
    """`check_settings` for everything in `settings` that names what takes it (`_target_`), however deep.

    And what `checked_by` declares of that.
    """
    target = settings.get("_target_")
    if isinstance(target, str) and (taker := resolved(target)) is not None:
        check_given(prefix or target, settings)
        check_settings(prefix, taker, settings)
        if taker in _AHEAD:
            _AHEAD[taker](prefix, {name: value for name, value in settings.items() if not _of_hydra(name)})
    for key, value in settings.items():
        if isinstance(value, Mapping):
            check_below(value, f"{prefix}.{key}".lstrip("."))


def check_given(where: str, settings: Mapping[str, object]) -> None:
    """ValueError, about `where`, for a setting that has to be given and is not."""
    if missing := sorted(key for key, value in settings.items() if value == "???"):
        raise ValueError(f"{where}: expected a value for {', '.join(missing)}, got none; give it one")


def check_name(name: object, where: str) -> None:
    """ValueError unless `name` is a plain name, and no path: it stands in names of files, in tables and on pages."""
    if not isinstance(name, str) or PLAIN_NAME.fullmatch(name) is None:
        raise ValueError(
            f"{where}: expected a plain name (letters, digits and . _ - + @ inside, at most 100), got {shown(name)}"
        )


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
        return f"a mapping ({described(inside[1])} each)" if inside and inside[1] is not Any else "a mapping"
    if inspect.isclass(origin) and issubclass(origin, Iterable):
        return f"a list ({described(inside[0])} each)" if inside else "a list"
    if origin is Callable or kind in (Any, object):
        return "what a _target_ makes" if origin else "anything"
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
    makers = [vars(each)["__init__"] for each in classes[:-1] if "__init__" in vars(each)] or [taker]
    found: dict[str, Any] = {}
    for maker in makers:
        parameters = inspect.signature(maker).parameters.values()
        found = {each.name: each.annotation for each in parameters if each.kind is not each.VAR_KEYWORD} | found
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            return {name: kind for name, kind in found.items() if name != "self"}, False
    return {name: kind for name, kind in found.items() if name != "self"}, True


def resolved(target: str) -> Callable[..., object] | None:
    """The function or class of this name; None where there is none, which those who call it will say."""
    try:
        found: Callable[..., object] = pkgutil.resolve_name(target)
        inspect.signature(found)
    except (ImportError, AttributeError, ValueError, TypeError):
        return None
    return found
