"""Digests of what benchmarks are made of: examples, code and versions of libraries."""

import ast
import functools
import hashlib
import importlib.util
import inspect
import json
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, version
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from evohydra.files import Plain
from evohydra.scoring.benchmarks.read_files import files_beside, named_files

LEFT_OUT = {"evohydra", "datasets", "typing_extensions"}  # data is digested itself
RENAMED = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml"}  # packages that are not called as they install
EVOHYDRA = Path(__file__).resolve().parents[2]
OURS = ("evohydra.scoring.benchmarks.", "evohydra.zoo.digits")


def digest_of(values: object) -> str:
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


def code_of(functions: Iterable[Callable[..., object]], *, of_tasks: bool = False) -> dict[str, str]:
    """By name a digest of the source of each module that `functions` are from, and of those of evohydra that it uses.

    Of modules of the user's own also of the files that they name, and of functions `of_tasks`, whose directories hold
    little else, of all that they may read there (see `read_files`). Modules of installed libraries are left to
    `versions_of`. Of what has no source, its name is digested.
    """
    found: dict[str, str] = {}
    read: set[Path] = set()
    for function in functions:
        for number, (key, (names, text)) in enumerate(_reached(function).items()):
            found[key] = hashlib.sha256(text.encode()).hexdigest()
            if is_own(file := names.get("__file__")):
                directory = Path(str(file)).resolve().parent
                read.update(named_files(text, directory))
                read.update(files_beside(text, directory) if of_tasks and number == 0 else ())
    for path in sorted(read, key=lambda path: path.parts[::-1]):
        key = path.name
        while key in found:
            key += "'"
        found[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    return dict(sorted(found.items()))


def libraries_of(functions: Iterable[Callable[..., object]]) -> set[str]:
    """The distributions that scores by `functions` depend on.

    Modules of evohydra say so (LIBRARIES); of other modules it is what they import, wherever in their text.
    """
    found: set[str] = set()
    for key, (names, text) in {k: v for each in functions for k, v in _reached(each).items()}.items():
        found.update(names.get("LIBRARIES", ()))
        if not key.startswith("evohydra."):
            found.update(filter(None, map(_distribution, _imported(text))))
    return found


def _imported(text: str) -> set[str]:
    """The packages that a module imports; nothing of a text that is no module."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except SyntaxError:
        return set()
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    names += [name for node in nodes if isinstance(node, ast.Call) for name in _by_call(node)]
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names - LEFT_OUT


def _by_call(call: ast.Call) -> Iterator[str]:
    """The module that `importlib.import_module` is called with, where it stands there in words."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name in ("import_module", "__import__") and call.args and isinstance(call.args[0], ast.Constant):
        yield str(call.args[0].value)


@functools.cache
def _distribution(package: str) -> str | None:
    """The distribution of an installed package; None of other modules."""
    if package in RENAMED:
        return RENAMED[package]
    with suppress(PackageNotFoundError):
        return distribution(package).metadata["Name"].lower().replace("_", "-")
    return next(iter(_distributions().get(package, ())), None)


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def is_own(file: object) -> bool:
    """Whether a module of this file is the user's own: not Python's, of an installed package, or evohydra's."""
    path = Path(str(file)).resolve()
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    others = (EVOHYDRA, *map(Path, (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))))
    return bool(file) and path.suffix == ".py" and not installed and not any(map(path.is_relative_to, others))


def _reached(function: Callable[..., object]) -> dict[str, tuple[Plain, str]]:
    """The globals and source text of the modules behind `function`, by a name that no directory is part of.

    Followed are what evohydra's own modules use of each other, files beside each other, and all that modules of the
    user's own import of such modules, wherever that stands in their text.
    """
    found: dict[str, tuple[Plain, str]] = {}
    seen: set[str] = set()
    waiting: list[object] = [_plain(function)]
    while waiting:
        each = waiting.pop()
        names = _names(each)
        key = str(names.get("__name__", getattr(each, "__name__", each)))
        place = str(names.get("__file__") or key)
        if place in seen:
            continue
        seen.add(place)
        key = key if key.startswith("evohydra.") else _last(names, key)
        while key in found:  # files of one name in different directories
            key += "'"
        found[key] = (names, text := _source(each, names))
        waiting += [value for value in map(_plain_or_none, names.values()) if value and _follows(value, names)]
        if is_own(names.get("__file__")):
            waiting += _own_imports(text, str(names.get("__package__") or ""))
    return found


def _own_imports(text: str, package: str) -> Iterator[Mapping[str, object]]:
    """The globals of the user's own modules that a text of `package` imports; of those not loaded name and file."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except SyntaxError:
        return
    wanted = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    wanted |= {name for node in nodes if isinstance(node, ast.Call) for name in _by_call(node)}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*filter(None, above), *filter(None, [node.module])])
            wanted |= {module, *(f"{module}.{alias.name}".lstrip(".") for alias in node.names)}
    for name in sorted(filter(None, wanted)):
        file, is_package = _file_of(name)
        if file is not None and is_own(file):
            yield {"__name__": name, "__file__": file, "__package__": name if is_package else name.rpartition(".")[0]}


def _file_of(name: str) -> tuple[str | None, bool]:
    """The file of a module, and whether it is a package's; found without running anything, loaded or not."""
    top, *below = name.split(".")
    spec = None
    with suppress(ImportError, AttributeError, ValueError):
        spec = importlib.util.find_spec(top)
    if spec is None:
        return None, False
    file, inside = spec.origin, list(spec.submodule_search_locations or ())
    for part in below:
        places = [Path(directory) / each for directory in inside for each in (f"{part}/__init__.py", f"{part}.py")]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            return None, False
        file, inside = str(found), [str(found.parent)] if found.name == "__init__.py" else []
    return file, bool(inside)


def _plain(function: object) -> object:
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function) if callable(function) else function
    return function if isinstance(function, FunctionType | type | ModuleType) else type(function)


def _names(each: object) -> Mapping[str, object]:
    """The globals of the module in which `each` is; lm-eval runs the files of tasks without keeping their modules."""
    if isinstance(each, Mapping):
        return each
    if isinstance(each, ModuleType):
        return vars(each)
    if isinstance(each, FunctionType):
        return each.__globals__
    module = sys.modules.get(getattr(each, "__module__", ""))
    return vars(module) if module else {}


def _last(names: Mapping[str, object], key: str) -> str:
    """Of a task's own file its name alone: lm-eval's name of its module holds where it is."""
    file = names.get("__file__")
    return Path(str(file)).name if file else key


def _source(each: Any, names: Plain) -> str:
    file = names.get("__file__")
    if file:
        with suppress(OSError), open(file, encoding="utf-8") as opened:
            return opened.read()
    with suppress(OSError, TypeError):
        return inspect.getsource(each)
    return str(getattr(each, "__qualname__", each))


def _plain_or_none(value: object) -> object:
    value = getattr(value, "__wrapped__", value)  # of functools.cache
    return value if isinstance(value, FunctionType | type | ModuleType) else type(value)


def _follows(value: object, names: Mapping[str, object]) -> bool:
    """Whether `value` is of a module of evohydra that is followed, or of a file beside that of `names`."""
    module = value.__name__ if isinstance(value, ModuleType) else value.__module__
    if str(module).startswith("evohydra"):
        return str(module).startswith(OURS)
    files = [each.get("__file__") for each in (names, _names(value))]
    return all(files) and Path(str(files[0])).parent == Path(str(files[1])).parent
