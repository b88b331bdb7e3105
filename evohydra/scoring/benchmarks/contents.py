"""Digests of what benchmarks are made of: examples, code and versions of libraries."""

import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

OURS = ("evohydra.scoring.benchmarks.", "evohydra.zoo.digits")


def digest_of(values: Any) -> str:
    """A SHA-256 of JSON data."""
    return hashlib.sha256(json.dumps(values, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def versions_of(packages: Iterable[str]) -> dict[str, str | None]:
    """The versions of distributions that are installed; None of the others: with them scores may be others."""
    found: dict[str, str | None] = {}
    for package in sorted(set(packages)):
        found[package] = None
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def code_of(functions: Iterable[Callable[..., Any]]) -> dict[str, str]:
    """By name a digest of the source of each module that `functions` are from, and of those of evohydra that it uses.

    Modules of installed libraries are left to `versions_of`. Of what has no source, its name is digested.
    """
    found: dict[str, str] = {}
    for function in functions:
        for key, (_, text) in _reached(function).items():
            found[key] = hashlib.sha256(text.encode()).hexdigest()
    return dict(sorted(found.items()))


def libraries_of(functions: Iterable[Callable[..., Any]]) -> set[str]:
    """The distributions that the modules behind `functions` name as those which scores depend on (LIBRARIES)."""
    reached = [names for function in functions for names, _ in _reached(function).values()]
    return {library for names in reached for library in names.get("LIBRARIES", ())}


def _reached(function: Callable[..., Any]) -> dict[str, tuple[Mapping[str, Any], str]]:
    """The globals and source text of the modules behind `function`, by a name that no directory is part of."""
    found: dict[str, tuple[Mapping[str, Any], str]] = {}
    waiting: list[Any] = [_plain(function)]
    while waiting:
        each = waiting.pop()
        names = _names(each)
        key = str(names.get("__name__", getattr(each, "__name__", each)))
        key = key if key.startswith("evohydra.") else _last(names, key)
        if key in found:
            continue
        found[key] = (names, _source(each, names))
        waiting += [value for value in map(_plain_or_none, names.values()) if value and _follows(value, names)]
    return found


def _plain(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function) if callable(function) else function
    return function if isinstance(function, FunctionType | type | ModuleType) else type(function)


def _names(each: Any) -> Mapping[str, Any]:
    """The globals of the module in which `each` is; lm-eval runs the files of tasks without keeping their modules."""
    if isinstance(each, ModuleType):
        return vars(each)
    if isinstance(each, FunctionType):
        return each.__globals__
    module = sys.modules.get(getattr(each, "__module__", ""))
    return vars(module) if module else {}


def _last(names: Mapping[str, Any], key: str) -> str:
    """Of a task's own file its name alone: lm-eval's name of its module holds where it is."""
    file = names.get("__file__")
    return Path(str(file)).name if file else key


def _source(each: Any, names: Mapping[str, Any]) -> str:
    file = names.get("__file__")
    if file:
        with suppress(OSError), open(file, encoding="utf-8") as opened:
            return opened.read()
    with suppress(OSError, TypeError):
        return inspect.getsource(each)
    return str(getattr(each, "__qualname__", each))


def _plain_or_none(value: Any) -> Any:
    value = getattr(value, "__wrapped__", value)  # of functools.cache
    return value if isinstance(value, FunctionType | type | ModuleType) else None


def _follows(value: Any, names: Mapping[str, Any]) -> bool:
    """Whether `value` is of a module of evohydra that is followed, or of a file beside that of `names`."""
    module = value.__name__ if isinstance(value, ModuleType) else value.__module__
    if str(module).startswith("evohydra"):
        return str(module).startswith(OURS)
    files = [each.get("__file__") for each in (names, _names(value))]
    return all(files) and Path(str(files[0])).parent == Path(str(files[1])).parent
