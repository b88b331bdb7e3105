"""Ranges that grow while a search presses on them, and the coordinates in which it looks for numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evohydra.searching.optimizers import Points
from evohydra.spaces.genes import Axis

Values = NDArray[np.float64]
BEST = 5  # genomes that tell whether a range binds
MOST_OF = 3  # so many of them at one end of a range make it grow there
AT_THE_END = 0.02  # of the range that the search began with: what is nearer to an end lies on it
STEP = 0.25  # of that range: how far it grows at a time


@dataclass(frozen=True)
class Ranges:
    """The unit cube in other coordinates: the range that each gene begins with (`Axis.begins`) is 0 to 1 in these.

    low, high: (genes,), the ends of the unit cube in them.
    """

    low: Values
    high: Values

    @classmethod
    def of(cls, axes: Sequence[Axis]) -> "Ranges":
        """Those of `axes`."""
        low, high = np.array([axis.begins for axis in axes], dtype=np.float64).reshape(-1, 2).T
        return cls(-low / (high - low), (1 - low) / (high - low))

    def outside(self, genomes: Points) -> Points:
        """`genomes`, (n, genes), of the unit cube in these coordinates."""
        return self.low + (self.high - self.low) * genomes

    def inside(self, points: Points) -> Points:
        """`points`, (n, genes), in the unit cube."""
        found: Points = np.clip((points - self.low) / (self.high - self.low), 0.0, 1.0)
        return found

    def grown(self, points: Points, values: Values, first: int, batch: int) -> tuple[Values, Values]:
        """Where a search with these `values`, (n,), larger is better, at `points`, (n, genes), looks now: low and high.

        After each generation (the first has `first` points, the others `batch`) a range grows at the ends at which most
        of the best genomes lie.
        """
        low, high = np.zeros(len(self.low)), np.ones(len(self.low))
        for count in range(first, len(values) + 1, batch):
            best = points[(-values[:count]).argsort(kind="stable")[:BEST]]
            low = np.where((best <= low + AT_THE_END).sum(axis=0) >= MOST_OF, np.maximum(low - STEP, self.low), low)
            high = np.where(
                (best >= high - AT_THE_END).sum(axis=0) >= MOST_OF, np.minimum(high + STEP, self.high), high
            )
        return low, high
