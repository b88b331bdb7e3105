"""Files: written with their old content or their new one, never half of it, and read within bounds."""

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

Plain = Mapping[str, Any]  # plain data by name: an object of a JSON file, a part of a configuration, a record
ROOM, READY = ".result.partial", ".result"  # see `together`
NAMES = ".names.json"  # in READY: what it held when it was made

MEGABYTE = 10**6
MOST_BYTES = 200 * MEGABYTE  # of a JSON file: tokenizers of large vocabularies have some 30 MB


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to a temporary name and rename it; OSError where the disk is full, with nothing left behind."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")  # of several processes each has its own
    try:
        temporary.write_bytes(content)
        on_disk(temporary)
        temporary.replace(path)
        on_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def tidy(directory: Path, names: Sequence[str]) -> None:
    """Remove what killed processes left of files that only the process at work in `directory` writes."""
    for name in names:
        for left in directory.glob(f".{name}.*.partial"):
            left.unlink(missing_ok=True)


def write_json(path: Path, data: Mapping[str, object]) -> None:
    """Write `data` as indented JSON, whole or not at all."""
    write_whole(path, json.dumps(data, indent=2, ensure_ascii=False).encode() + b"\n")


def check_plain_file(path: Path) -> None:
    """ValueError for what is there but is no ordinary file: to read from a pipe may take forever. OSError without."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path}: expected an ordinary file, got a directory, a pipe or a device")


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """The UTF-8 text of an ordinary file of at most `most_bytes`; ValueError for others, OSError where none is."""
    check_plain_file(path)
    if (size := path.stat().st_size) > most_bytes:
        raise ValueError(f"{path}: expected a file of at most {most_bytes / MEGABYTE:g} MB, got {size / MEGABYTE:g} MB")
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged (expected text in UTF-8, got: {error})") from error


def parse_json(text: str, where: object) -> object:
    """The content of a JSON text; ValueError, which names `where` it is from, for none and for one nested too deep."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is damaged (expected JSON, got: {error})") from error


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object in a file; ValueError, which names the file, for anything else, OSError where there is none."""
    content = parse_json(read_text(path, most_bytes), path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged (expected a JSON object, got {type(content).__name__})")
    return content


def on_disk(path: Path) -> None:
    """Wait until a file's content, or a directory's list of names, is on the disk and not only in memory."""
    with suppress(OSError):  # some file systems cannot do this with directories; nothing more can be had from them
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def all_on_disk(directory: Path) -> None:
    """The same for all that is in `directory`."""
    for below, _, files in os.walk(directory):
        for name in files:
            on_disk(Path(below) / name)
        on_disk(Path(below))


@contextmanager
def together(directory: Path, kinds: Sequence[str]) -> Iterator[Path]:
    """A room for files that belong together; when all are written they take the places of older ones in `directory`.

    `kinds` are patterns of names: what is like one of them in `directory` and is not in the room is taken away. The
    change happens at once, when the room gets its last name. What is then left to do, to move each file to its place,
    is only tidying: `finish` does it after a kill, and `current` knows where a file is meanwhile.
    """
    finish(directory)
    room = directory / ROOM
    shutil.rmtree(room, ignore_errors=True)
    try:
        room.mkdir(parents=True)
        yield room
        names = sorted(path.name for path in room.iterdir())
        old = sorted({path.name for kind in kinds for path in directory.glob(kind)} - set(names))
        write_json(room / NAMES, {"new": names, "old": old})
        all_on_disk(room)
        room.rename(directory / READY)
        on_disk(directory)
    finally:
        shutil.rmtree(room, ignore_errors=True)
    finish(directory)


def finish(directory: Path) -> None:
    """Move files that belong together to their places, where a kill has come between."""
    ready = directory / READY
    if not (ready / NAMES).is_file():
        shutil.rmtree(ready, ignore_errors=True)  # all have been moved
        return
    listed = _listed(ready / NAMES)
    for name in listed["old"]:
        _remove(directory / name)
    for name in listed["new"]:
        if os.path.lexists(ready / name):
            _remove(directory / name)
            (ready / name).rename(directory / name)
    on_disk(directory)
    (ready / NAMES).unlink()
    ready.rmdir()


def current(directory: Path, name: str) -> Path:
    """Where a file of `directory` is, also between `together` and `finish`; it may not exist."""
    ready = directory / READY
    with suppress(OSError, ValueError):
        listed = _listed(ready / NAMES)
        if name in listed["old"] or (ready / name).exists():
            return ready / name
    return directory / name


def _listed(file: Path) -> dict[str, list[str]]:
    """What is new and what is old, as names of the directory itself; ValueError for anything else."""
    listed = read_json(file)
    lists = [listed.get("new"), listed.get("old")]
    names = [name for each in lists if isinstance(each, list) for name in each]
    plain = all(isinstance(name, str) and Path(name).name == name and name not in ("", "..") for name in names)
    if not all(isinstance(each, list) for each in lists) or not plain or len(listed) != 2:
        raise ValueError(f"{file} is damaged (expected plain names of files, new and old)")
    return listed


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[bool]:
    """Hold the lock of the file or directory at `path`; yields False where the system or the file system has none.

    The lock ends with the process. filelock, which runs use, has no shared locks and none of directories; on Windows,
    which has no flock(2), nothing is locked. BlockingIOError where another process has it locked, OSError where there
    is nothing to open.
    """
    if sys.platform == "win32":
        yield False
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            held = False
        yield held
    finally:
        os.close(opened)
