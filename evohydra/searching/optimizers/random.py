"""Random search: uniform, or a scrambled Sobol sequence (Owen 1998), by scipy."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from evohydra.searching.optimizers import AtLeastOne, Points, dimension_of, starting_points
from evohydra.searching.optimizers.singles import Result
from evohydra.spaces.genes import Axis


class RandomSearch:
    """Independent points, uniform or (`sobol`) evenly spread; starting points come first."""

    takes_singles = True

    def __init__(
        self,
        *,
        axes: Sequence[Axis],
        seed: int,
        start: Points | None = None,
        population: AtLeastOne = 16,
        sobol: bool = False,
    ) -> None:
        dimension = dimension_of(axes)
        self.population = population
        self._dimension = dimension
        self._waiting = starting_points(start, dimension, population)
        self._generator = np.random.default_rng(seed)
        self._drawn = np.empty((0, dimension))  # for single asks
        self._sobol = qmc.Sobol(dimension, rng=self._generator) if sobol else None

    def ask(self) -> Points:
        """The next points, (population, dimension)."""
        count = self.population - len(self._waiting)
        if self._sobol is None:
            points = self._generator.random((count, self._dimension))
        else:
            points = (
                np.vstack([self._sobol.random(1) for _ in range(count)]) if count else np.empty((0, self._dimension))
            )
        points = np.vstack([self._waiting, points])
        self._waiting = self._waiting[:0]
        return points

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Learn nothing."""

    def ask_one(self, number: int, pending: Points) -> NDArray[np.float64]:
        """The next point, (dimension,)."""
        if not len(self._drawn):
            self._drawn = self.ask()
        point, self._drawn = self._drawn[0], self._drawn[1:]
        return np.asarray(point)

    def tell_one(self, number: int, result: Result) -> None:
        """Learn nothing."""

    def close(self) -> None:
        """Nothing to release."""
