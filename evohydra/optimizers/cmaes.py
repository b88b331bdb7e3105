"""CMA-ES (Hansen, The CMA Evolution Strategy: A Tutorial, arXiv 1604.00772), by the package cmaes."""

import math
from collections.abc import Sequence
from typing import Any

import cmaes
import numpy as np
from numpy.typing import NDArray

from evohydra.genome import Axis
from evohydra.optimizers import Points, dimension_of, starting_points


class CMAES:
    """CMA-ES with the defaults of the paper's run (Optuna's): mean 0.5, sigma 1/6, population 4 + floor(3 ln n).

    The first mean is `mean`, moved by `sigma` times what the space favours.

    Starting points take the places of the first samples of generation 0. What is told of them is the point on the line
    from the mean to them that a sample could have been (Hansen, Injecting external solutions into CMA-ES, arXiv
    1110.4181, section 3), so that they pull the distribution without tearing it. When the distribution has collapsed,
    the search starts again from the mean with a new seed.
    """

    strategy: Any = cmaes.CMA

    def __init__(
        self,
        *,
        axes: Sequence[Axis],
        seed: int,
        start: Points | None = None,
        mean: float = 0.5,
        sigma: float = 1 / 6,
        population: int | None = None,
    ) -> None:
        dimension = dimension_of(axes)
        if dimension < 2:
            raise ValueError("CMA-ES needs 2 genes or more, this search space has 1: use optimizer=de or random")
        self._dimension, self._sigma = dimension, sigma
        self._mean: NDArray[np.float64] = np.clip([mean + sigma * axis.favoured for axis in axes], 0.0, 1.0)
        self.population = population or default_population(dimension)
        self._seeds = np.random.SeedSequence(seed)
        self._waiting = starting_points(start, dimension, self.population)
        self._injected = 0
        self._strategy = self._new()

    def _new(self) -> Any:
        return self.strategy(
            mean=self._mean.copy(),
            sigma=self._sigma,
            bounds=np.tile([0.0, 1.0], (self._dimension, 1)),
            population_size=self.population,
            seed=int(self._seeds.spawn(1)[0].generate_state(1)[0]),
        )

    def ask(self) -> Points:
        """The next generation, (population, dimension)."""
        genomes = np.array([self._strategy.ask() for _ in range(self.population)])
        self._injected = len(self._waiting)
        genomes[: self._injected] = self._waiting
        self._waiting = self._waiting[:0]
        return genomes

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Update the distribution; the package minimises."""
        told = genomes.copy()
        for place in range(self._injected):
            told[place] = self._clipped(genomes[place])
        self._strategy.tell([(x, -float(f)) for x, f in zip(told, fitness, strict=True)])
        if self._strategy.should_stop():
            self._strategy = self._new()

    def _clipped(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """`point` drawn towards the mean to the length of a long sample; generation 0 is isotropic."""
        step = point - self._mean
        longest = self._sigma * (math.sqrt(self._dimension) + 2 * self._dimension / (self._dimension + 2))
        scale = min(1.0, longest / max(float(np.linalg.norm(step)), 1e-12))
        clipped: NDArray[np.float64] = self._mean + step * scale
        return clipped

    def close(self) -> None:
        """Nothing to release."""


class SepCMAES(CMAES):
    """CMA-ES with a diagonal covariance (Ros and Hansen 2008): linear time, for hundreds of genes and more."""

    strategy = cmaes.SepCMA


def default_population(dimension: int) -> int:
    """4 + floor(3 ln n) (arXiv 1604.00772, equation 48)."""
    return 4 + math.floor(3 * math.log(dimension))
