"""CMA-ES with margin (Hamano et al., arXiv 2205.13482): CMA-ES that never stops trying other levels; package cmaes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evohydra.checks import Positive, Share
from evohydra.search.optimizers import AtLeastTwo, Points, dimension_of, level_of, shortened, starting_points
from evohydra.search.optimizers.cmaes import RESAMPLED, default_population
from evohydra.search.optimizers.lean import LeanCMAwM
from evohydra.spaces.genes import Axis


class CMAwM:
    """CMA-ES on all coordinates, those with levels rounded to a grid and kept from settling on one level for good.

    Level k of K is k / (K - 1) in the strategy and asked for as the middle of its share of the unit interval. Mean,
    starting points and starting again are as in `optimizers.cmaes.CMAES`.
    """

    def __init__(
        self,
        *,
        axes: Sequence[Axis],
        seed: int,
        start: Points | None = None,
        mean: Share = 0.5,
        sigma: Positive = 1 / 6,
        population: AtLeastTwo | None = None,
    ) -> None:
        dimension = dimension_of(axes)
        self._sigma = sigma
        self._levels = np.array([0 if axis.kind == "continuous" else axis.levels for axis in axes])
        self._steps = np.array([1 / (levels - 1) if levels else 0.0 for levels in self._levels])
        self._mean: NDArray[np.float64] = np.clip([mean + sigma * axis.favoured for axis in axes], 0.0, 1.0)
        self.population = population or default_population(dimension)
        self._seeds = np.random.SeedSequence(seed)
        self._waiting = starting_points(start, dimension, self.population)
        self._samples = np.empty((0, dimension))  # what the strategy gave, and what it is told in the end
        self._strategy = self._new()

    def _new(self) -> LeanCMAwM:
        return LeanCMAwM(
            mean=self._mean.copy(),
            sigma=self._sigma,
            bounds=np.tile([0.0, 1.0], (len(self._mean), 1)),
            steps=self._steps,
            n_max_resampling=100 if (self._levels == 0).sum() <= RESAMPLED else 0,
            population_size=self.population,
            seed=int(self._seeds.spawn(1)[0].generate_state(1)[0]),
        )

    def ask(self) -> Points:
        """The next generation, (population, dimension)."""
        pairs = [self._strategy.ask() for _ in range(self.population)]
        self._samples = np.array([sample for _, sample in pairs])
        genomes = self._asked(np.array([encoded for encoded, _ in pairs]))
        for place, point in enumerate(self._waiting):
            inner = [level_of(u, n) / (n - 1) if n else u for u, n in zip(point, self._levels, strict=True)]
            genomes[place] = self._asked(np.array([inner]))[0]
            self._samples[place] = shortened(np.array(inner), self._mean, self._sigma)
        self._waiting = self._waiting[:0]
        return genomes

    def _asked(self, inner: Points) -> Points:
        """Grid points, (population, dimension), as points of the unit cube."""
        steps = np.maximum(self._levels - 1, 1)
        middles = (np.rint(inner * steps) + 0.5) / np.maximum(self._levels, 1)
        return np.where(self._levels > 0, middles, inner)

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Update the distribution; the package minimises."""
        self._strategy.tell([(x, -float(f)) for x, f in zip(self._samples, fitness, strict=True)])
        if self._strategy.should_stop():
            self._strategy = self._new()

    def close(self) -> None:
        """Nothing to release."""
