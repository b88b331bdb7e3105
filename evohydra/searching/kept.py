"""What a search keeps of a genome that is done: little in memory, the rest in its line of the ledger.

A search of 10,000 genomes with 4000 genes would else keep gigabytes that hardly anything asks for again.
"""

import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import copysign
from typing import Generic, TypeVar, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from evohydra.searching.json_lines import Entry

Read = Callable[[int], Entry]
Value = TypeVar("Value")


class FieldOnFile(Mapping[str, Value], Generic[Value]):
    """A field of line `number`, a mapping; the line is read again whenever it is looked at."""

    __slots__ = ("_name", "_number", "_read")

    def __init__(self, read: Read, number: int, name: str) -> None:
        self._read, self._number, self._name = read, number, name

    def _whole(self) -> Mapping[str, Value]:
        found: Mapping[str, Value] = self._read(self._number)[self._name]
        return found

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
    """The genome of line `number`, (dimension,); the line is read again whenever it is looked at."""

    __slots__ = ("_number", "_read", "_size")

    def __init__(self, read: Read, number: int, size: int) -> None:
        self._read, self._number, self._size = read, number, size

    def _whole(self) -> list[float]:
        found: list[float] = self._read(self._number)["genome"]
        return found

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

    __slots__ = ("_pairs",)

    def __init__(self, scores: Mapping[str, Sequence[float]]) -> None:
        self._pairs = tuple([(sys.intern(name), _packed(values)) for name, values in scores.items()])

    def __getitem__(self, name: str) -> list[float]:
        for each, values in self._pairs:
            if each == name:
                return [float(value) for value in values]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


class PackedPlaces(Mapping[str, Sequence[int]]):
    """Places of examples by benchmark, the same numbers, in four bytes each."""

    __slots__ = ("_pairs",)

    def __init__(self, places: Mapping[str, Sequence[int]]) -> None:
        self._pairs = tuple([(sys.intern(name), array("I", values)) for name, values in places.items()])

    def __getitem__(self, name: str) -> list[int]:
        for each, values in self._pairs:
            if each == name:
                return values.tolist()
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


def _packed(values: Sequence[float]) -> "bytes | array[float]":
    if all(0 <= value <= 255 and value == int(value) and copysign(1, value) > 0 for value in values):
        return bytes(map(int, values))
    return array("d", values)
