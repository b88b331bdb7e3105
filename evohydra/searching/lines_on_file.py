"""Files of lines that are too large for memory: each line is read when it is asked for, or one after the other."""

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import overload

from evohydra.files import check_plain_file
from evohydra.searching.json_lines import CHECK, Entry, LedgerError, unsealed


def each_line(path: Path) -> Iterator[Entry]:
    """The entries of a file one after the other, as by `json_lines.whole_lines`, of which one at a time is in memory.

    A torn last line is left out, and there are none where there is no file. LedgerError for a damaged line.
    """
    yield from (entry for _, entry in _read(path))


def _read(path: Path) -> Iterator[tuple[bytes, Entry]]:
    if path.exists():
        check_plain_file(path)
    if not path.is_file():
        return
    read = json.loads if _of_earlier_versions(path) else unsealed
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield line, read(line)
            except ValueError as error:
                raise LedgerError(f"{path}: line {number} is damaged ({error})") from error


def _of_earlier_versions(path: Path) -> bool:
    """Whether no line has a check sum."""
    with path.open("rb") as file:
        return not any(f'"{CHECK}": "'.encode() in line for line in file if line.endswith(b"\n"))


class LinesOnFile(Sequence[Entry]):
    """The whole lines that a file has now; each is read again when it is asked for. In memory are 16 bytes of each.

    look: is given each entry once, in the order of the file. LedgerError for a damaged line, and where a line is asked
    for that has changed since.
    """

    def __init__(self, path: Path, look: Callable[[Entry], None]) -> None:
        self._path = path
        self._ends, self._digests = array("Q"), array("Q")
        for line, entry in _read(path):
            self._ends.append((self._ends[-1] if self._ends else 0) + len(line))
            self._digests.append(_digest(line))
            look(entry)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, at: int) -> Entry: ...

    @overload
    def __getitem__(self, at: slice) -> list[Entry]: ...

    def __getitem__(self, at: int | slice) -> Entry | list[Entry]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        number = range(len(self))[at]
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
