"""What a search keeps of a genome that is done: little in memory, the rest in its line of the ledger.

A search of 10,000 genomes with 4000 genes would else keep gigabytes that hardly anything asks for again.
"""

import errno
import math
import os
import pickle
import sys
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from evohydra.searching.json_lines import Entry

Read = Callable[[int], Entry]
Value = TypeVar("Value")
Values = TypeVar("Values")
Number = TypeVar("Number", int, float)


class Spill(Sequence[bytes]):
    """A growing list of bytes in a file without a name in `directory`, which ends with this process.

    In memory are eight bytes for each. OSError where the disk is full.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            self._file = os.dup(file.fileno())
        os.set_inheritable(self._file, False)
        weakref.finalize(self, os.close, self._file)
        self._ends = array("Q")

    def append(self, content: bytes) -> None:
        """One more."""
        begin = self._ends[-1] if self._ends else 0
        try:
            if os.pwrite(self._file, content, begin) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            reason = f"{error.strerror}; all lines so far are whole: make room and give the same command again"
            raise OSError(error.errno, reason, str(self._directory)) from error
        self._ends.append(begin + len(content))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, at: int) -> bytes: ...

    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...

    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        number = range(len(self))[at]
        begin = self._ends[number - 1] if number else 0
        return os.pread(self._file, self._ends[number] - begin, begin)


class Index:
    """Which numbers belong to a digest: 20 to 40 bytes for each, where a dict of bytes takes 170.

    Only the first eight bytes of digests are told apart: who looks something up has to check what is found. A hash
    table with open addresses. Numbers are added in their order, and those of a digest are found in it.
    """

    FULL = 0.6  # of the table, when it is doubled

    def __init__(self) -> None:
        self._clear(64)

    def _clear(self, size: int) -> None:
        self._keys, self._numbers = array("Q", bytes(8 * size)), array("I", bytes(4 * size))  # numbers from 1 on
        self._count = 0

    def add(self, digest: bytes, number: int) -> None:
        """One more number of a digest of eight bytes or more."""
        if self._count >= self.FULL * len(self._keys):
            pairs = sorted(zip(self._numbers, self._keys, strict=True))
            self._clear(2 * len(self._keys))
            for each, key in pairs:
                if each:
                    self._put(key, each)
        self._put(int.from_bytes(digest[:8]), number + 1)

    def _put(self, key: int, number: int) -> None:
        last = len(self._keys) - 1  # of a power of two
        at = key & last
        while self._numbers[at]:
            at = (at + 1) & last
        self._keys[at], self._numbers[at] = key, number
        self._count += 1

    def numbers(self, digest: bytes) -> Iterator[int]:
        """The numbers of a digest, and of others that begin with the same eight bytes."""
        key, last = int.from_bytes(digest[:8]), len(self._keys) - 1
        at = key & last
        while self._numbers[at]:
            if self._keys[at] == key:
                yield self._numbers[at] - 1
            at = (at + 1) & last


class Span(Sequence[Value]):
    """Part of a growing list, from place `first` to `last` (not with it), without a copy of it."""

    def __init__(self, whole: Sequence[Value], first: int, last: int) -> None:
        self.whole, self.first, self._range = whole, first, range(first, last)

    def __len__(self) -> int:
        return len(self._range)

    @overload
    def __getitem__(self, at: int) -> Value: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Value]: ...

    def __getitem__(self, at: int | slice) -> Value | Sequence[Value]:
        if isinstance(at, slice):
            part = self._range[at]
            return Span(self.whole, part.start, part.stop) if part.step == 1 else [self.whole[each] for each in part]
        return self.whole[self._range[at]]


class FieldOnFile(Mapping[str, Value], Generic[Value]):
    """A field of line `number`, a mapping; the line is read when it is first looked at."""

    __slots__ = ("_found", "_name", "_number", "_read")

    def __init__(self, read: Read, number: int, name: str) -> None:
        self._read, self._number, self._name = read, number, name
        self._found: Mapping[str, Value] | None = None

    def _whole(self) -> Mapping[str, Value]:
        if self._found is None:
            self._found = self._read(self._number)[self._name]
        assert self._found is not None
        return self._found

    def __getitem__(self, key: str) -> Value:
        return self._whole()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self._whole()) == dict(other)

    __hash__ = None  # type: ignore[assignment]


class GenomeOnFile(Sequence[float]):
    """The genome of line `number`, (dimension,); the line is read when it is first looked at."""

    __slots__ = ("_found", "_number", "_read", "_size")

    def __init__(self, read: Read, number: int, size: int) -> None:
        self._read, self._number, self._size = read, number, size
        self._found: list[float] | None = None

    def _whole(self) -> list[float]:
        if self._found is None:
            self._found = self._read(self._number)["genome"]
        assert self._found is not None
        return self._found

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, at: int) -> float: ...

    @overload
    def __getitem__(self, at: slice) -> list[float]: ...

    def __getitem__(self, at: int | slice) -> float | list[float]:
        return self._whole()[at]

    def __iter__(self) -> Iterator[float]:
        return iter(self._whole())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._whole() == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[np.float64]:
        return np.array(self._whole(), dtype=dtype)


class PackedScores(Mapping[str, list[float]]):
    """Scores by benchmark, the same numbers: a byte each where all are whole numbers from 0 to 255, else eight."""

    __slots__ = ("pairs",)

    def __init__(self, scores: Mapping[str, Sequence[float]]) -> None:
        self.pairs = tuple([(sys.intern(name), _packed(values)) for name, values in scores.items()])

    def __getitem__(self, name: str) -> list[float]:
        return [float(value) for value in _of(self.pairs, name)]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


class PackedPlaces(Mapping[str, Sequence[int]]):
    """Places of examples by benchmark, the same numbers, in four bytes each."""

    __slots__ = ("pairs",)

    def __init__(self, places: Mapping[str, Sequence[int]]) -> None:
        self.pairs = tuple([(sys.intern(name), array("I", values)) for name, values in places.items()])

    def __getitem__(self, name: str) -> list[int]:
        return list(_of(self.pairs, name))

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


class Spilled(Mapping[str, list[Number]], Generic[Number]):
    """Packed scores, or places, in number `at` of a spill; their names, which are asked for most often, are here.

    kind: the number as Python knows it.
    """

    __slots__ = ("_at", "_found", "_kind", "_names", "_spill")

    def __init__(self, spill: Spill, at: int, names: tuple[str, ...], kind: Callable[[float], Number]) -> None:
        self._spill, self._at, self._names = spill, at, names
        self._kind: Callable[[float], Number] = kind
        self._found: Sequence[tuple[str, Sequence[float]]] | None = None

    def __getitem__(self, name: str) -> list[Number]:
        if name not in self._names:
            raise KeyError(name)
        if self._found is None:
            self._found = pickle.loads(self._spill[self._at])
        assert self._found is not None
        return list(map(self._kind, _of(self._found, name)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _of(pairs: Iterable[tuple[str, Values]], wanted: str) -> Values:
    for name, values in pairs:
        if name == wanted:
            return values
    raise KeyError(wanted)


def _packed(values: Sequence[float]) -> "bytes | array[float]":
    if all(0 <= value <= 255 and value == int(value) and math.copysign(1, value) > 0 for value in values):
        return bytes(map(int, values))
    return array("d", values)
