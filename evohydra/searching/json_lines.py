"""Append-only files of JSON objects, one a line with its check sum, that survive any kill and power cuts."""

import errno
import hashlib
import itertools
import json
import logging
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

from filelock import FileLock, Timeout

from evohydra.files import check_plain_file, locked, on_disk, write_whole

logger = logging.getLogger(__name__)
LOCK = ".lock"  # of a run's directory: other runs ask for it
SIGN = ".running"  # locked meanwhile, for those who only look whether a run is at work
PATIENCE = 10.0  # seconds to wait for one who looks
CHECK = "check"  # the last key of each line: the beginning of the SHA-256 of the line without it


class LedgerError(ValueError):
    """A run directory that belongs to another run, is in use, or holds a damaged file."""


Entry = dict[str, Any]


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Keep other processes out of a run's directory; LedgerError where one is at work there."""
    lock, sign = FileLock(directory / LOCK, timeout=0), FileLock(directory / SIGN, timeout=PATIENCE)
    try:
        lock.acquire()
        _show(sign)
    except Timeout as error:
        raise LedgerError(f"{directory}: another process is working on this run") from error
    except (OSError, NotImplementedError) as error:
        logger.warning("%s: this file system has no locks (%s); start each run once only", directory, error)
    try:
        yield
    finally:
        sign.release()
        lock.release()


def _show(sign: FileLock) -> None:
    try:
        sign.acquire(poll_interval=0.01)
    except Timeout:
        logger.warning(
            "%s: another process keeps it locked; reports will not see that this run is at work", sign.lock_file
        )


def in_use(directory: Path) -> bool:
    """Whether a process is at work in a run's directory; False where that cannot be known."""
    try:
        # Shared, so that those who look are not taken for a run, and a run that starts waits a moment at most.
        with locked(directory / SIGN, shared=True):
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def sealed(entry: Mapping[str, object]) -> bytes:
    """An entry as a line of JSON with its check sum."""
    line = json.dumps(entry, ensure_ascii=False).encode()
    return line[:-1] + _seal(line) + b"\n"


def unsealed(line: bytes) -> Entry:
    """The entry of a line, without its check sum; ValueError where it is not what was written."""
    entry = json.loads(line)
    if not isinstance(entry, dict) or not entry:
        raise ValueError("expected a JSON object")
    if CHECK not in entry:
        raise ValueError(
            f"it has no {CHECK!r}: an earlier version of evohydra wrote it, or somebody changed it after it was written"
        )
    written = line.rstrip(b"\r\n")
    end = len(_seal(b""))
    if written[-end:] != _seal(written[:-end] + b"}"):
        raise ValueError("its check sum does not fit: it was changed after it was written")
    del entry[CHECK]
    return entry


def _seal(line: bytes) -> bytes:
    return f', "{CHECK}": "{hashlib.sha256(line).hexdigest()[:16]}"}}'.encode()


def whole_lines(path: Path) -> list[Entry]:
    """The entries of a file that may still be written to, without a torn last line; none where there is no file.

    Lines of earlier versions, which have no check sums, are read where no line has one. LedgerError for a damaged line.
    """
    if path.exists():
        check_plain_file(path)
    content = path.read_bytes() if path.is_file() else b""
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    return list(entries_of(path, lines, checked=any(map(has_check_sum, lines))))


def has_check_sum(line: bytes) -> bool:
    """Whether a line has one, as all do but those of earlier versions."""
    return f'"{CHECK}": "'.encode() in line


def entries_of(path: Path, lines: Iterable[bytes], *, checked: bool) -> Iterator[Entry]:
    """The entries of whole lines of a file, with check sums if `checked`. LedgerError for a damaged one."""
    for number, line in enumerate(lines, start=1):
        try:
            yield unsealed(line) if checked else json.loads(line)
        except ValueError as error:
            raise LedgerError(f"{path}: line {number} is damaged ({error})") from error


class OnFile(Sequence[Entry]):
    """The entries of a file as they are now, each read when it is asked for."""

    def __init__(self, read: Callable[[int], Entry], count: int) -> None:
        self._read, self._count = read, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> Entry: ...

    @overload
    def __getitem__(self, at: slice) -> list[Entry]: ...

    def __getitem__(self, at: int | slice) -> Entry | list[Entry]:
        if isinstance(at, slice):
            return [self._read(each) for each in range(*at.indices(self._count))]
        return self._read(range(self._count)[at])


class JsonLines:
    """A file of JSON objects, one a line; a torn last line is cut off when it is opened.

    Each line is on the disk before the next one is begun, so that a power cut takes the last one at most.
    in_memory: keep the entries; else each is read again from the file when it is asked for.
    """

    def __init__(self, path: Path, *, in_memory: bool = True) -> None:
        self.path = path
        self._kept: list[Entry] | None = [] if in_memory else None
        self._ends = array("Q")  # where each line ends in the file
        if path.exists():
            check_plain_file(path)
        self._file = path.open("a+b", buffering=0)
        try:
            self._read()
        except LedgerError:
            self._file.close()
            raise
        on_disk(path.parent)

    def _read(self) -> None:
        with self.path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    self._file.truncate(self._size)
                    return
                entry = self._unsealed(line, len(self._ends))
                self._ends.append(self._size + len(line))
                if self._kept is not None:
                    self._kept.append(entry)

    @property
    def _size(self) -> int:
        """Bytes of all whole lines."""
        return self._ends[-1] if self._ends else 0

    def _unsealed(self, line: bytes, number: int) -> Entry:
        try:
            return unsealed(line)
        except ValueError as error:
            raise LedgerError(f"{self.path}: line {number + 1} is damaged ({error})") from error

    @property
    def entries(self) -> Sequence[Entry]:
        """The entry of each line; LedgerError where one that is read again is not what was written."""
        return OnFile(self.read, len(self._ends)) if self._kept is None else self._kept

    def read(self, number: int) -> Entry:
        """The entry of line `number`, counted from 0, from the file."""
        begin = self._ends[number - 1] if number else 0
        with self.path.open("rb") as file:  # not the file that is written to: records are looked at after its end, too
            file.seek(begin)
            return self._unsealed(file.read(self._ends[number] - begin), number)

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, entry: Mapping[str, object]) -> None:
        """Write one line, whole or not at all; OSError where the disk is full."""
        line = sealed(entry)
        size = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(self._file.fileno())
        except OSError as error:
            os.ftruncate(self._file.fileno(), size)
            reason = f"{error.strerror}; all lines so far are whole: make room and give the same command again"
            raise OSError(error.errno, reason, str(self.path)) from error
        self._ends.append(self._size + len(line))
        if self._kept is not None:
            self._kept.append(dict(entry))

    def cut(self, count: int) -> None:
        """Keep the first `count` lines."""
        del self._ends[count:]
        os.ftruncate(self._file.fileno(), self._size)
        if self._kept is not None:
            del self._kept[count:]

    def keep(self, kept: Sequence[bool]) -> None:
        """Keep the lines, of all, for which `kept` is true; the file changes at once."""
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        left = [line for line, keep in zip(lines, kept, strict=True) if keep]
        write_whole(self.path, b"".join(left))
        self._ends = array("Q", itertools.accumulate(map(len, left)))
        if self._kept is not None:
            self._kept = [entry for entry, keep in zip(self._kept, kept, strict=True) if keep]
        self._file.close()
        self._file = self.path.open("a+b", buffering=0)

    def close(self) -> None:
        """Release the file to other processes."""
        self._file.close()
