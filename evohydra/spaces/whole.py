"""Settings that are whole numbers: others are refused, for to cut off what is behind the point says nothing."""

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, get_args

# Of the configuration itself, and of any optimizer: the lowest value of each. What else is whole says so by its type.
LEAST = {"budget": 1, "top": 1, "seed": 0, "warm_start_top": 1, "pad_vocabulary_to": 1, "optimizer.population": 1}
OR_NULL = {"pad_vocabulary_to", "optimizer.population"}


def whole(key: str, value: object) -> int:
    """`value` as an int; ValueError, which names `key`, unless it is a whole number. 2.0 is one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        raise ValueError(f"{key}: expected a whole number, got {value!r}")
    return int(value)


def check_whole(config: Mapping[str, Any]) -> None:
    """ValueError where a number of this configuration should be whole and is not, wherever it stands.

    What is meant for a parameter of a function or class (`_target_`) that takes whole numbers, and no others, has to be
    one. Words for such a number ("auto") and null are left to the parts.
    """
    for key, least in LEAST.items():
        group, _, name = key.rpartition(".")
        value = (config[group] if group else config).get(name)
        if value is not None or key not in OR_NULL:
            check_int(key, value, least)
    _check_below("", config)


def check_settings(prefix: str, function: Callable[..., object], settings: Mapping[str, object]) -> None:
    """The same for the `settings` of `function`, or of a dataclass, which stand under `prefix`."""
    for name, parameter in inspect.signature(function).parameters.items():
        kinds = [parameter.annotation, *get_args(parameter.annotation)]
        if name in settings and int in kinds and float not in kinds:
            value = settings[name]
            if isinstance(value, float) or (isinstance(value, bool) and bool not in kinds):
                check_int(f"{prefix}.{name}", value)


def check_int(key: str, value: object, least: int | None = None) -> None:
    """ValueError, which names `key`, unless `value` is an int, `least` or more."""
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        raise ValueError(f"{key}: expected a whole number{_bound(least)}, got {value!r}")


def _bound(least: int | None) -> str:
    return "" if least is None else f" of at least {least}"


def _check_below(prefix: str, settings: Mapping[str, object]) -> None:
    target = settings.get("_target_")
    function = _resolved(target) if isinstance(target, str) else None
    if function is not None:
        check_settings(prefix, function, settings)
    for key, value in settings.items():
        if isinstance(value, Mapping):
            _check_below(f"{prefix}.{key}".lstrip("."), value)


def _resolved(target: str) -> Callable[..., object] | None:
    """The function or class of this name; None where there is none, which those who call it will say."""
    try:
        found: Callable[..., object] = pkgutil.resolve_name(target)
        inspect.signature(found)
    except (ImportError, AttributeError, ValueError, TypeError):
        return None
    return found
