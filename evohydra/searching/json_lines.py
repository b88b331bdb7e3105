"""Append-only files of JSON objects, one a line with its check sum, that survive any kill and power cuts."""

import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from evohydra.files import check_plain_file, locked, on_disk, write_whole

logger = logging.getLogger(__name__)
LOCK = ".lock"  # of a run's directory: other runs ask for it
SIGN = ".running"  # locked meanwhile, for those who only look whether a run is at work
PATIENCE = 10.0  # seconds to wait for one who looks
CHECK = "check"  # the last key of each line: the beginning of the SHA-256 of the line without it


class LedgerError(ValueError):
    """A run directory that belongs to another run, is in use, or holds a damaged file."""


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


def unsealed(line: bytes) -> dict[str, Any]:
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


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """The entries of a file that may still be written to, without a torn last line; none where there is no file.

    Lines of earlier versions, which have no check sums, are read where no line has one. LedgerError for a damaged line.
    """
    if path.exists():
        check_plain_file(path)
    content = path.read_bytes() if path.is_file() else b""
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    of_earlier_versions = not any(f'"{CHECK}": "'.encode() in line for line in lines)
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(json.loads(line) if of_earlier_versions else unsealed(line))
        except ValueError as error:
            raise LedgerError(f"{path}: line {number} is damaged ({error})") from error
    return entries


class JsonLines:
    """A file of JSON objects, one a line; a torn last line is cut off when it is opened.

    Each line is on the disk before the next one is begun, so that a power cut takes the last one at most.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
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
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                self.entries.append(unsealed(line))
            except ValueError as error:
                raise LedgerError(f"{self.path}: line {number} is damaged ({error})") from error

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
        self.entries.append(dict(entry))

    def forget(self, number: int) -> None:
        """Keep the content of entry `number` no longer in memory; its line, and its place among the others, stay."""
        self.entries[number] = {}

    def cut(self, count: int) -> None:
        """Keep the first `count` lines."""
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        os.ftruncate(self._file.fileno(), sum(map(len, lines[:count])))
        del self.entries[count:]

    def keep(self, kept: Sequence[bool]) -> None:
        """Keep the lines, of all, for which `kept` is true; the file changes at once."""
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        write_whole(self.path, b"".join(line for line, keep in zip(lines, kept, strict=True) if keep))
        self.entries = [entry for entry, keep in zip(self.entries, kept, strict=True) if keep]
        self._file.close()
        self._file = self.path.open("a+b", buffering=0)

    def close(self) -> None:
        """Release the file to other processes."""
        self._file.close()
