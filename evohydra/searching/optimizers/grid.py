"""Grids: all combinations of a few levels of each gene, or for many genes the lines between starting points."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evohydra.searching.optimizers import MOST, AtLeastTwo, Points, dimension_of, starting_points
from evohydra.searching.optimizers.soup import ingredients, known_points, mixture
from evohydra.spaces.genes import Axis


class _Once:
    """Asks for `points` in one generation; then the search is over."""

    def __init__(self, points: Points) -> None:
        self.population = len(points)
        self._points = points

    def ask(self) -> Points:
        """All points, or none when they were told."""
        return self._points.copy()

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Be done."""
        self._points = self._points[:0]

    def close(self) -> None:
        """Nothing to release."""


class Grid(_Once):
    """Every combination of `points` levels of each gene, all levels of a choice; starting points come first."""

    def __init__(self, *, axes: Sequence[Axis], seed: int, start: Points | None = None, points: AtLeastTwo = 5) -> None:
        dimension = dimension_of(axes)
        levels = [_levels(axis, points) for axis in axes]
        count = math.prod(map(len, levels))
        if count > MOST:
            raise ValueError(
                f"optimizer=grid: expected at most {MOST} combinations, got {count:.3g} of {dimension} genes; lower "
                "optimizer.points, freeze genes, make groups larger, or take optimizer=line"
            )
        known = starting_points(start, dimension, 0 if start is None else len(start))
        super().__init__(_different([*known, *map(np.array, itertools.product(*levels))]))


class Line(_Once):
    """For each pair of starting points, `points` mixtures of the two at equal distances, ends included.

    The usual sweep of one weight. Starting points come first. Choices are those of the nearer end.
    """

    def __init__(
        self, *, axes: Sequence[Axis], seed: int, start: Points | None = None, points: AtLeastTwo = 11
    ) -> None:
        known = known_points(start, dimension_of(axes), "line")
        shares = np.linspace(0.0, 1.0, points)
        mixed = [
            mixture(axes, np.array(pair), np.array([1 - share, share]))
            for pair in itertools.combinations(ingredients(known), 2)
            for share in shares
        ]
        super().__init__(_different([*known, *mixed]))


def _levels(axis: Axis, points: int) -> NDArray[np.float64]:
    if axis.kind == "continuous":
        return np.linspace(0.0, 1.0, points)
    count = axis.levels if axis.kind == "categorical" else min(axis.levels, points)
    return (np.rint(np.linspace(0, axis.levels - 1, count)) + 0.5) / axis.levels


def _different(points: Sequence[NDArray[np.float64]]) -> Points:
    """In their order, each once."""
    return np.array(list({point.tobytes(): point for point in points}.values()))
