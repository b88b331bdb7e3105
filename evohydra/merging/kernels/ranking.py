"""Which entries of a tensor are the largest: tables made once, from which any number of them is found exactly."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 2**16 - 1  # entries whose counts fit 16 bits
SMALLEST_BLOCK, BLOCKS = 2**13, 64  # of smaller tensors: what is looked through to find an entry, and how many of them
Values = Callable[[int, int], Tensor]


class Cut(NamedTuple):
    """Where a ranking is cut: at `value`, and of the entries equal to it behind the one at flat index `last`."""

    value: float
    last: int


BELOW_ALL, ABOVE_ALL = Cut(-1.0, -1), Cut(float("inf"), -1)


class Ranking:
    """The order of n non-negative numbers by size, equal ones in the order of the tensor.

    `values(start, stop)` gives a part of them, (stop - start,), and must give the same whenever it is called. Of 16-bit
    floats the bit patterns are counted, for each block of the tensor: a pattern is its own rank, and a number's place
    is found by looking into one block. Of wider ones the sorted numbers are kept, of all and of each block.
    """

    def __init__(self, size: int, values: Values) -> None:
        self.size = size
        self._dtype = values(0, 0).dtype
        self.by_pattern = self._dtype.itemsize == 2
        # float16 has eight times as many numbers between two powers of two as bfloat16, and its tables so many columns.
        smallest = SMALLEST_BLOCK if self._dtype == torch.bfloat16 else BLOCK
        self._block = min(BLOCK, max(smallest, size // BLOCKS))
        starts = range(0, size, self._block)
        self._sorted: NDArray[np.float64 | np.float32] | None = None
        self._blocks: list[NDArray[np.float64 | np.float32]] = []  # sorted as well, each for itself
        self._counts = np.zeros((0, 0), np.uint16)  # (patterns, blocks)
        self._first = 0  # the smallest pattern
        self._below = np.zeros(1, np.int64)  # (patterns + 1,): numbers below each pattern
        if not self.by_pattern:
            self._sorted = np.empty(size, np.float64 if self._dtype == torch.float64 else np.float32)
            for start in starts:
                self._sorted[start : start + self._block] = values(start, min(size, start + self._block)).cpu().numpy()
            self._blocks = [np.sort(self._sorted[start : start + self._block]) for start in starts]
            self._sorted.sort()
            self.nbytes: int = 2 * self._sorted.nbytes
            return
        counts = np.zeros((len(starts), 2**15), np.uint16)
        for row, start in enumerate(starts):
            counts[row] = np.bincount(_patterns(values(start, min(size, start + self._block))), minlength=2**15)
        if size:
            used = np.flatnonzero(counts.any(axis=0))
            self._first = int(used[0])
            self._counts = np.ascontiguousarray(counts[:, self._first : used[-1] + 1].T)
            self._below = np.concatenate([[0], np.cumsum(self._counts.sum(axis=1, dtype=np.int64))])
        self.nbytes = self._counts.nbytes + self._below.nbytes

    def nonzero(self) -> int:
        """How many of the numbers are above zero."""
        if self._sorted is not None:
            return self.size - int(np.searchsorted(self._sorted, self._sorted.dtype.type(0), "right"))
        return self.size - (int(self._below[1]) if self.size and self._first == 0 else 0)

    def largest(self, kept: int, values: Values) -> Cut:
        """The cut above which are the `kept` largest numbers; of those equal to it the first."""
        if kept <= 0:
            return ABOVE_ALL
        if kept >= self.size:
            return BELOW_ALL
        value, below, equal = self._at(self.size - kept)
        return self._cut(value, kept - (self.size - below - equal), equal, values)

    def smallest(self, kept: int, values: Values) -> Cut:
        """The cut below which are the `kept` smallest numbers; of those equal to it the first."""
        if kept <= 0:
            return BELOW_ALL
        if kept >= self.size:
            return ABOVE_ALL
        value, below, equal = self._at(kept - 1)
        return self._cut(value, kept - below, equal, values)

    def _at(self, rank: int) -> tuple[float, int, int]:
        """The number at `rank`, from the smallest; how many are below it, and how many equal it."""
        if self._sorted is not None:
            value = float(self._sorted[rank])
        else:
            place = int(np.searchsorted(self._below, rank, "right")) - 1
            value = self._number(self._first + place)
        return value, *self.around(value)

    def around(self, value: float) -> tuple[int, int]:
        """How many of the numbers are below `value`, one of them, and how many equal it."""
        if self._sorted is not None:
            wanted = self._sorted.dtype.type(value)  # of another type, numpy would convert all of them
            below, upto = (int(np.searchsorted(self._sorted, wanted, side)) for side in ("left", "right"))
            return below, upto - below
        place = self._place(value)
        return int(self._below[place]), int(self._below[place + 1] - self._below[place])

    def _number(self, pattern: int) -> float:
        if self._dtype == torch.bfloat16:
            return float(np.uint32(pattern << 16).view(np.float32))
        return float(np.uint16(pattern).view(np.float16))

    def _place(self, value: float) -> int:
        if self._dtype == torch.bfloat16:
            return (int(np.float32(value).view(np.uint32)) >> 16) - self._first
        return int(np.float16(value).view(np.uint16)) - self._first

    def _cut(self, value: float, taken: int, equal: int, values: Values) -> Cut:
        """The cut at `value` of which `taken` out of `equal` entries are on the near side."""
        if taken == equal or value == 0.0:  # zeros may be on either side
            return Cut(value, self.size)
        upto = np.cumsum(self._equal_in_blocks(value), dtype=np.int64)
        block = int(np.searchsorted(upto, taken))
        start, before = block * self._block, int(upto[block - 1]) if block else 0
        found = np.flatnonzero((values(start, min(self.size, start + self._block)) == value).cpu().numpy())
        assert len(found) == upto[block] - before, "the values have changed since they were ranked"
        return Cut(value, start + int(found[taken - before - 1]))

    def _equal_in_blocks(self, value: float) -> NDArray[np.uint16 | np.int64]:
        if self._sorted is None:
            counts: NDArray[np.uint16] = self._counts[self._place(value)]
            return counts
        wanted = self._sorted.dtype.type(value)
        ends = [[block.searchsorted(wanted, side) for block in self._blocks] for side in ("left", "right")]
        return np.asarray(ends[1], np.int64) - np.asarray(ends[0], np.int64)


def _patterns(x: Tensor) -> NDArray[np.int16]:
    return x.contiguous().view(torch.int16).cpu().numpy()
