"""CMA-ES with margin (Hamano et al., arXiv 2205.13482): CMA-ES that never stops trying other levels; package cmaes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evohydra.checks import Positive, Share
from evohydra.searching.optimizers import (
    AtLeastTwo,
    Points,
    default_population,
    dimension_of,
    level_of,
    shortened,
    starting_points,
)
from evohydra.searching.optimizers.cmaes import RESAMPLED
from evohydra.searching.optimizers.lean import LeanCMAwM
from evohydra.searching.optimizers.singles import Blocks, Result
from evohydra.spaces.genes import Axis


class CMAwM:
    """CMA-ES on all coordinates, those with levels rounded to a grid and kept from settling on one level for good.

    Level k of K is k / (K - 1) in the strategy and asked for as the middle of its share of the unit interval. Mean,
    starting points, starting again and single asks are as in `optimizers.cmaes.CMAES`.
    """

    takes_singles = True

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
        self._blocks = Blocks[NDArray[np.float64]]()
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
            genomes[place], self._samples[place] = self._started(point)
        self._waiting = self._waiting[:0]
        return genomes

    def _started(self, point: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A starting point as it is asked for, and what is told of it."""
        inner = np.array([level_of(u, n) / (n - 1) if n else u for u, n in zip(point, self._levels, strict=True)])
        return self._asked(inner[None])[0], shortened(inner, self._mean, self._sigma)

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

    def ask_one(self, number: int, pending: Points) -> NDArray[np.float64]:
        """A sample of the distribution as it is, (dimension,); the starting points first."""
        encoded, sample = self._strategy.ask()
        genome: NDArray[np.float64] = self._asked(encoded[None])[0]
        if len(self._waiting):
            (genome, sample), self._waiting = self._started(self._waiting[0]), self._waiting[1:]
        self._blocks.ask(number, sample)
        return genome

    def tell_one(self, number: int, result: Result) -> None:
        """Update the distribution with the last result of a block."""
        block, strategy = self._blocks.tell(number, result, self.population), self._strategy
        if block:
            samples, genomes, fitness = block
            self._samples = np.array(samples)
            self.tell(genomes, fitness)
        if self._strategy is not strategy:
            self._blocks.forget()

    def close(self) -> None:
        """Nothing to release."""
