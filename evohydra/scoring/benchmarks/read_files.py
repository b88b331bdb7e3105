"""Files that code of one's own reads, as far as its text names them: word lists, tables of units, keys of answers."""

import ast
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

LONGEST = 300  # characters of a text that may be a file's name
GLOBS = ("glob", "rglob", "iglob")
CODE = (".py", ".pyc")
READING = re.compile(
    r"\b(open|read\w*|load\w*|glob|rglob|iglob|iterdir|listdir|scandir|walk|fromfile|genfromtxt|from_\w+|with_suffix)\b"
)
LARGE = 10**8  # bytes
RUNS = ("outputs", "multirun", "wandb")  # directories with what runs write


def files_beside(text: str, directory: Path) -> list[Path]:
    """All files in the `directory` of a module and below that its text may read: none where it reads no file at all.

    Without code, hidden files, what runs write, and files of more than 100 MB.
    """
    return sorted(_tree(directory, set())) if READING.search(text) else []


def _tree(directory: Path, seen: set[Path]) -> Iterator[Path]:
    if directory.resolve() in seen:  # by links in a circle
        return
    seen.add(directory.resolve())
    with suppress(OSError):  # a directory that may not be read
        for path in sorted(directory.iterdir()):
            if path.name.startswith((".", "__pycache__")) or path.name in RUNS or path.suffix in CODE:
                continue
            if path.is_dir():
                yield from _tree(path, seen)
            elif path.is_file() and path.stat().st_size <= LARGE:
                yield path.resolve()


def named_files(text: str, directory: Path) -> list[Path]:
    """The files that a module in `directory` names, wherever the names stand in its text.

    Paths from there or from where the command was given; and names, patterns of `glob` and f-strings in `directory`,
    the one above it, and directories of theirs that are named too. Of names that are put together otherwise nothing is
    known.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return []
    names, patterns = set(_constants(tree)), set(_patterns(tree))
    found: set[Path] = set()
    for each in (directory, directory.parent):
        found.update(file for file in _below(each, names) if _is_named(file.name, names, patterns))
    for name in names:
        with suppress(OSError, ValueError):  # of a text that is no path
            found.update(path.resolve() for path in (directory / name, Path(name)) if path.is_file())
    return sorted(file for file in found if file.suffix not in CODE)


def _is_named(file: str, names: Collection[str], patterns: Collection[str]) -> bool:
    return file in names or any(fnmatch(file, pattern) for pattern in patterns)


def _constants(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) <= LONGEST:
            yield node.value


def _patterns(tree: ast.AST) -> Iterator[str]:
    """What names of files look like: the last part of patterns and of f-strings with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(each.value) if isinstance(each, ast.Constant) else "*" for each in node.values)
            if "." in text and any(map(str.isalpha, text)):
                yield text.rpartition("/")[2]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in GLOBS:
            given = [each.value for each in node.args if isinstance(each, ast.Constant)]
            yield from (each.rpartition("/")[2] for each in given if isinstance(each, str))


def _below(directory: Path, names: Collection[str]) -> Iterator[Path]:
    """The files in `directory`, and in the directories in it that are named."""
    with suppress(OSError):  # one that may not be read
        for path in sorted(directory.iterdir()):
            if path.is_file():
                yield path
            elif path.name in names and path.is_dir() and not path.is_symlink():
                yield from _below(path, names)
