"""Files of lines that are too large for memory: each line is read when it is asked for, or one after the other."""

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

from evohydra.files import check_plain_file
from evohydra.searching.json_lines import CHECK, Entry, LedgerError, OnFile, entries_of, has_check_sum


def each_line(path: Path) -> Iterator[Entry]:
    """The entries of a file one after the other, as by `json_lines.whole_lines`, of which one at a time is in memory.

    A torn last line is left out, and there are none where there is no file. LedgerError for a damaged line.
    """
    yield from entries_of(path, _lines(path), checked=any(map(has_check_sum, _lines(path))))


def _lines(path: Path) -> Iterator[bytes]:
    """Those that are whole."""
    if path.exists():
        check_plain_file(path)
    if path.is_file():
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))


class LinesOnFile(OnFile):
    """The whole lines that a file has now; each is read again when it is asked for. In memory are 16 bytes of each.

    look: is given each entry once, in the order of the file. LedgerError for a damaged line, and where a line is asked
    for that has changed since.
    """

    def __init__(self, path: Path, look: Callable[[Entry], None]) -> None:
        self._path = path
        self._ends, self._digests = array("Q"), array("Q")
        checked = any(map(has_check_sum, _lines(path)))
        for entry in entries_of(path, self._noted(), checked=checked):
            look(entry)
        super().__init__(self._line, len(self._ends))

    def _noted(self) -> Iterator[bytes]:
        """The lines, with where each ends and a digest of it kept."""
        for line in _lines(self._path):
            self._ends.append((self._ends[-1] if self._ends else 0) + len(line))
            self._digests.append(_digest(line))
            yield line

    def _line(self, number: int) -> Entry:
        begin = self._ends[number - 1] if number else 0
        with self._path.open("rb") as file:
            file.seek(begin)
            line = file.read(self._ends[number] - begin)
        if _digest(line) != self._digests[number]:
            raise LedgerError(f"{self._path}: line {number + 1} was changed while the file was read; try again")
        entry: Entry = json.loads(line)
        entry.pop(CHECK, None)
        return entry


def _digest(line: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(line, digest_size=8).digest())
