"""CMA-ES (Hansen, The CMA Evolution Strategy: A Tutorial, arXiv 1604.00772), by the package cmaes."""

from collections.abc import Callable, Sequence
from typing import Any

import cmaes
import numpy as np
from numpy.typing import NDArray

from evohydra.checks import Positive, Share
from evohydra.searching.optimizers import (
    AtLeastTwo,
    Points,
    default_population,
    dimension_of,
    shortened,
    starting_points,
)
from evohydra.searching.optimizers.lean import LeanCMA
from evohydra.searching.optimizers.restarts import Restarts, same
from evohydra.searching.optimizers.singles import Blocks, Result
from evohydra.spaces.genes import Axis

WIDE = 400  # genes, from which on the package's own strategy takes too much time and memory
RESAMPLED = 100  # coordinates with bounds, up to which samples outside are drawn again; of more, nearly all are


class CMAES:
    """CMA-ES with the defaults of the paper's run (Optuna's): mean 0.5, sigma 1/6, population 4 + floor(3 ln n).

    The first mean is `mean`, moved by `sigma` times what the space favours. Choices are made by thresholds, as in
    arXiv 2403.13187: their coordinates have no bounds in the strategy, and are cut to the unit interval when asked.

    Starting points take the places of the first samples of generation 0. What is told of them is shortened (see
    `optimizers.shortened`). When the distribution has collapsed, the search starts again as `restarts` says, with a new
    seed.

    Asked for one genome at a time it is told results in the order in which they arrive, in blocks of a population.
    """

    takes_singles = True
    strategy: Any = cmaes.CMA
    wide: Any = LeanCMA

    def __init__(
        self,
        *,
        axes: Sequence[Axis],
        seed: int,
        start: Points | None = None,
        mean: Share = 0.5,
        sigma: Positive = 1 / 6,
        population: AtLeastTwo | None = None,
        restarts: Callable[[int, float, np.random.Generator], Restarts] = same,
    ) -> None:
        self._dimension = dimension = dimension_of(axes)
        free = np.array([axis.kind == "categorical" for axis in axes])
        self._bounds = np.where(free[:, None], [-np.inf, np.inf], [0.0, 1.0])
        self._mean: NDArray[np.float64] = np.clip(
            [mean + sigma * axis.favoured for axis in axes], self._bounds[:, 0], self._bounds[:, 1]
        )
        self._resampling = 100 if np.isfinite(self._bounds).all(axis=1).sum() <= RESAMPLED else 0
        self.population = population or default_population(dimension)
        self._seeds = np.random.SeedSequence(seed)
        self._generator = np.random.default_rng([seed, 1])
        self._restarts = restarts(self.population, sigma, self._generator)
        self._regime, self._evaluations = next(self._restarts), 0
        self._waiting = starting_points(start, dimension, self.population)
        self._samples = np.empty((0, dimension))  # what the strategy gave, and what it is told in the end
        self._blocks = Blocks[NDArray[np.float64]]()
        self._strategy = self._new()

    def _new(self) -> Any:
        strategy = self.strategy if self._dimension <= WIDE else self.wide
        if self._dimension == 1 and strategy is cmaes.SepCMA:  # which does not take it; all covariances are diagonal
            strategy = cmaes.CMA
        mean = self._mean.copy()
        if self._regime.anywhere:
            bounded = np.isfinite(self._bounds[:, 0])
            mean[bounded] = self._generator.random(bounded.sum())
        return strategy(
            mean=mean,
            sigma=self._regime.sigma,
            bounds=self._bounds,
            n_max_resampling=self._resampling,
            population_size=self._regime.population,
            seed=int(self._seeds.spawn(1)[0].generate_state(1)[0]),
        )

    def ask(self) -> Points:
        """The next generation, (genomes, dimension)."""
        self._samples = np.array([self._strategy.ask() for _ in range(self._regime.population)])
        genomes: Points = np.clip(self._samples, 0.0, 1.0)
        for place, point in enumerate(self._waiting):
            genomes[place], self._samples[place] = point, shortened(point, self._mean, self._regime.sigma)
        self._waiting = self._waiting[:0]
        return genomes

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Update the distribution; the package minimises."""
        self._strategy.tell([(x, -float(f)) for x, f in zip(self._samples, fitness, strict=True)])
        self._evaluations += len(fitness)
        if self._strategy.should_stop() or self._evaluations >= self._regime.limit:
            self._regime, self._evaluations = self._restarts.send(self._evaluations), 0
            self._strategy = self._new()

    def ask_one(self, number: int, pending: Points) -> NDArray[np.float64]:
        """A sample of the distribution as it is, (dimension,); the starting points first."""
        sample = self._strategy.ask()
        genome = np.clip(sample, 0.0, 1.0)
        if len(self._waiting):
            genome, self._waiting = self._waiting[0], self._waiting[1:]
            sample = shortened(genome, self._mean, self._regime.sigma)
        self._blocks.ask(number, sample)
        return np.asarray(genome)

    def tell_one(self, number: int, result: Result) -> None:
        """Update the distribution with the last result of a block."""
        block, strategy = self._blocks.tell(number, result, self._regime.population), self._strategy
        if block:
            samples, genomes, fitness = block
            self._samples = np.array(samples)
            self.tell(genomes, fitness)
        if self._strategy is not strategy:
            self._blocks.forget()

    def close(self) -> None:
        """Nothing to release."""


class SepCMAES(CMAES):
    """CMA-ES with a diagonal covariance (Ros and Hansen 2008): linear time, for hundreds of genes and more."""

    strategy = wide = cmaes.SepCMA
