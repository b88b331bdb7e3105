"""CatCMA with margin (Hamano et al., arXiv 2504.07884), for genes of all kinds; by the package cmaes."""

from collections.abc import Sequence

import cmaes
import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

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
from evohydra.searching.optimizers.lean import LeanCatCMAwM, solution
from evohydra.searching.optimizers.singles import Blocks, Result
from evohydra.spaces.genes import Axis


class CatCMA:
    """A normal distribution over continuous and integer coordinates, a categorical one for each choice, both learnt.

    The first mean of the normal one is `mean`, moved by `sigma` times what the space favours; of two levels the second
    one's first probability is that of a standard normal number below what the space favours; more levels are equally
    likely. Starting points and starting again are as in `optimizers.cmaes.CMAES`; the categorical distribution alone
    never collapses: it keeps a share of all levels (the margin). Single asks are as in `optimizers.cmaes.CMAES`, too.
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
        self._dimension, self._sigma = dimension_of(axes), sigma
        kinds = np.array([_kind(axis) for axis in axes])
        self._continuous, self._integer, self._chosen = (
            np.flatnonzero(kinds == kind) for kind in ("continuous", "integer", "categorical")
        )
        self._normal = np.concatenate([self._continuous, self._integer])  # in the order of the package
        self._levels = np.array([axis.levels for axis in axes])
        favoured = np.array([axis.favoured for axis in axes])
        edge = np.array(
            [0.5 / axis.levels if kind == "integer" else 0.0 for axis, kind in zip(axes, kinds, strict=True)]
        )
        self._mean: NDArray[np.float64] = np.clip(mean + sigma * favoured, edge, 1 - edge)[self._normal]
        self._probabilities = self._first_probabilities(favoured)
        self.population = population or default_population(self._dimension)
        self._seeds = np.random.SeedSequence(seed)
        self._waiting = starting_points(start, self._dimension, self.population)
        self._samples: list[cmaes.CatCMAwM.Solution] = []  # what the strategy gave, and what it is told in the end
        self._blocks = Blocks[cmaes.CatCMAwM.Solution]()
        self._strategy = self._new()

    def _first_probabilities(self, favoured: NDArray[np.float64]) -> NDArray[np.float64]:
        """(choices, most levels), zero where a choice has no such level."""
        levels = self._levels[self._chosen]
        table: NDArray[np.float64] = (np.arange(levels.max(initial=0)) < levels[:, None]) / levels[:, None]
        # The least probability that the package would let it have: of none, nothing could be learnt.
        margin = 1 - 0.73 ** (1 / max(1, len(self._chosen) + len(self._integer)))
        second = np.clip(norm.cdf(favoured[self._chosen]), margin, 1 - margin)
        for row in np.flatnonzero(levels == 2):
            table[row, :2] = 1 - second[row], second[row]
        return table

    def _new(self) -> LeanCatCMAwM:
        spaces: dict[str, object] = {}
        if len(self._continuous):
            spaces["x_space"] = np.tile([0.0, 1.0], (len(self._continuous), 1))
        if len(self._integer):
            spaces["z_space"] = [(np.arange(n) + 0.5) / n for n in self._levels[self._integer]]
        if len(self._chosen):
            spaces |= {"c_space": self._levels[self._chosen], "cat_param": self._probabilities.copy()}
        if len(self._normal):
            spaces |= {"mean": self._mean.copy(), "sigma": self._sigma}
        return LeanCatCMAwM(
            **spaces,
            gaussians=len(self._normal),
            resampling=100 if 0 < len(self._continuous) <= RESAMPLED else 0,
            population_size=self.population,
            seed=int(self._seeds.spawn(1)[0].generate_state(1)[0]),
        )

    def ask(self) -> Points:
        """The next generation, (population, dimension)."""
        self._samples = [self._strategy.ask() for _ in range(self.population)]
        for place, point in enumerate(self._waiting):
            self._samples[place] = self._as_sample(point)
        genomes = np.array([self._genome(sample) for sample in self._samples])
        genomes[: len(self._waiting), self._continuous] = self._waiting[:, self._continuous]
        self._waiting = self._waiting[:0]
        return genomes

    def _genome(self, sample: cmaes.CatCMAwM.Solution) -> NDArray[np.float64]:
        point = np.empty(self._dimension)
        if len(self._continuous):
            point[self._continuous] = sample.x
        if len(self._integer):
            point[self._integer] = sample.z
        if len(self._chosen):
            point[self._chosen] = (sample.c.argmax(axis=1) + 0.5) / self._levels[self._chosen]
        return point

    def _as_sample(self, point: NDArray[np.float64]) -> cmaes.CatCMAwM.Solution:
        """A starting point as if it had been sampled."""
        levels = [level_of(point[at], self._levels[at]) for at in self._chosen]
        one_hot = np.arange(self._probabilities.shape[1]) == np.array(levels, dtype=int)[:, None]
        integers = [(level_of(point[at], self._levels[at]) + 0.5) / self._levels[at] for at in self._integer]
        normal = np.concatenate([point[self._continuous], integers])
        sample = shortened(normal, self._mean, self._sigma) if len(normal) else None
        return solution(point[self._continuous], np.array(integers), one_hot, sample)

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Update the distributions; the package minimises."""
        self._strategy.tell([(sample, -float(f)) for sample, f in zip(self._samples, fitness, strict=True)])
        if len(self._normal) and self._strategy.should_stop():
            self._strategy = self._new()

    def ask_one(self, number: int, pending: Points) -> NDArray[np.float64]:
        """A sample of the distributions as they are, (dimension,); the starting points first."""
        sample = self._strategy.ask()
        if not len(self._waiting):
            genome = self._genome(sample)
        else:
            point, self._waiting = self._waiting[0], self._waiting[1:]
            genome = self._genome(sample := self._as_sample(point))
            genome[self._continuous] = point[self._continuous]
        self._blocks.ask(number, sample)
        return genome

    def tell_one(self, number: int, result: Result) -> None:
        """Update the distributions with the last result of a block."""
        block, strategy = self._blocks.tell(number, result, self.population), self._strategy
        if block:
            samples, genomes, fitness = block
            self._samples = list(samples)
            self.tell(genomes, fitness)
        if self._strategy is not strategy:
            self._blocks.forget()

    def close(self) -> None:
        """Nothing to release."""


def _kind(axis: Axis) -> str:
    """The package wants integers of two levels as choices: there is no order to them."""
    return "categorical" if axis.kind == "integer" and axis.levels == 2 else axis.kind
