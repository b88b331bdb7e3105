"""Append-only files of JSON objects, one a line, that survive any kill."""

import errno
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)
LOCK = ".lock"  # of a run's directory


class LedgerError(ValueError):
    """A run directory that belongs to another run, is in use, or holds a damaged file."""


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Keep other processes out of a run's directory; LedgerError where one is at work there."""
    lock = FileLock(directory / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise LedgerError(f"{directory}: another process is working on this run") from error
    except (OSError, NotImplementedError) as error:
        logger.warning("%s: this file system has no locks (%s); start each run once only", directory, error)
    try:
        yield
    finally:
        lock.release()


def in_use(directory: Path) -> bool:
    """Whether a process is at work in a run's directory; False where that cannot be known."""
    file = directory / LOCK
    if not file.is_file():
        return False
    try:
        with FileLock(file, timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False


class JsonLines:
    """A file of JSON objects, one a line, appended and flushed; a torn last line is cut off when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        self._file = path.open("a+b", buffering=0)
        try:
            self._read()
        except LedgerError:
            self._file.close()
            raise

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                self.entries.append(json.loads(line))
            except ValueError as error:
                raise LedgerError(f"{self.path}: line {number} is damaged ({error})") from error

    def append(self, entry: Mapping[str, object]) -> None:
        """Write one line, whole or not at all; OSError where the disk is full."""
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        size = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError as error:
            os.ftruncate(self._file.fileno(), size)
            reason = f"{error.strerror}; all lines so far are whole: make room and give the same command again"
            raise OSError(error.errno, reason, str(self.path)) from error
        self.entries.append(dict(entry))

    def cut(self, count: int) -> None:
        """Keep the first `count` lines."""
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        os.ftruncate(self._file.fileno(), sum(map(len, lines[:count])))
        del self.entries[count:]

    def close(self) -> None:
        """Release the file to other processes."""
        self._file.close()
