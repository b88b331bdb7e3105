"""Optimizers: ask for a batch of genomes, tell their fitness. All maximise over the unit cube.

A yaml in conf/optimizer is `_partial_`: the search adds `axes` (what each coordinate is, see `evohydra.spaces.genes`),
`seed` and `start`, points that the first generation is to hold. Every optimizer owns its random generator, and repeats
itself given the same seed and fitness.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from evohydra.spaces.genes import Axis

Points = NDArray[np.float64]
MOST = 100_000  # genomes of a generation, levels of a gene: all of them are in memory at once
AtLeastOne = Annotated[int, Ge(1), Le(MOST)]
AtLeastTwo = Annotated[int, Ge(2), Le(MOST)]


class Optimizer(Protocol):
    """A search strategy."""

    population: int  # the size of the first generation

    def ask(self) -> Points:
        """The next generation, (genomes, dimension), in the unit cube; none: there is nothing left to try."""
        ...

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Learn from a whole generation: what `ask` gave, and its fitness, (genomes,), finite, larger is better."""
        ...

    def close(self) -> None:
        """Release what the optimizer holds."""
        ...


@runtime_checkable
class LearnsFromObjectives(Protocol):
    """A strategy for several objectives (`evohydra.searching.objectives`). It has `tell` too, for searches with one."""

    def tell_objectives(self, genomes: Points, objectives: NDArray[np.float64]) -> None:
        """Learn from a whole generation: its objectives, (genomes, objectives), finite, larger is better."""
        ...


@runtime_checkable
class LearnsFromExamples(Protocol):
    """A strategy that compares genomes example by example, so that all must be scored on the same ones."""

    def tell_examples(self, genomes: Points, fitness: NDArray[np.float64], scores: NDArray[np.float64]) -> None:
        """Learn from a whole generation: its fitness, (genomes,), and all scores, (genomes, examples), finite."""
        ...


@runtime_checkable
class LearnsFromEstimates(Protocol):
    """A strategy that weighs fitness by its error bar, and learns from one objective or several."""

    def tell_estimates(self, genomes: Points, objectives: NDArray[np.float64], error_bars: NDArray[np.float64]) -> None:
        """Learn from a whole generation: its objectives, (genomes, objectives), and error bars of fitness, (genomes,).

        Objectives are finite, larger is better. An error bar is the standard error of an estimate; 0: none is known.
        """
        ...


@runtime_checkable
class LearnsFromConstraints(Protocol):
    """A strategy that looks for genomes which keep limits."""

    def tell_constraints(self, genomes: Points, numbers: NDArray[np.float64]) -> None:
        """Learn numbers that have to be 0 or more, (genomes, limits), of a generation whose fitness was told."""
        ...


@runtime_checkable
class TakesEarlier(Protocol):
    """A strategy that is made with `earlier` too, the genomes of an earlier run and their fitness.

    transferred: by how much these count now, 0 where they do not help; None without an earlier run.
    """

    takes_earlier: bool
    transferred: float | None


@runtime_checkable
class StateIsData(Protocol):
    """A strategy whose state is what it was told: a search goes on by telling it generations that it was not asked."""

    state_is_data: bool


@runtime_checkable
class AsksInTurn(Protocol):
    """A strategy whose `ask` takes long, and gives one genome after the other."""

    def ask_in_turn(self) -> Iterator[NDArray[np.float64]]:
        """The genomes that `ask` would give, the same bits, each (dimension,), as soon as it is known."""
        ...


@runtime_checkable
class UsualBudget(Protocol):
    """A strategy that needs another number of genomes than most."""

    usual_budget: int


@runtime_checkable
class LaterGenerations(Protocol):
    """A strategy whose generations behind the first one have another size."""

    later: int


@runtime_checkable
class WidensRanges(Protocol):
    """A strategy that begins in a part of the unit cube (`Axis.begins`) and widens it where its best genomes press."""

    widens_ranges: bool


def starting_points(start: Points | None, dimension: int, population: int) -> Points:
    """`start` as (k, dimension) in the unit cube, cut to a generation; ValueError for another dimension."""
    points = np.empty((0, dimension)) if start is None else np.asarray(start, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != dimension:
        raise ValueError(f"starting points: expected the shape (k, {dimension}), got {points.shape}")
    return np.clip(points[:population], 0.0, 1.0)


def latin_hypercube(population: int, dimension: int, generator: np.random.Generator) -> Points:
    """(population, dimension): in each coordinate one point in each of `population` equal parts.

    As in `scipy.stats.qmc.LatinHypercube`, which draws in another order: with it, runs begun before would not go on.
    """
    cells = np.stack([generator.permutation(population) for _ in range(dimension)], axis=1)
    points: Points = (cells + generator.random((population, dimension))) / population
    return points


def favoured(points: Points, axes: Sequence[Axis]) -> Points:
    """`points`, (n, dimension), uniform in the unit cube, drawn to where the axes say that a search may begin.

    A coordinate is then above 1/2 with the probability of a standard normal number below what is favoured, and on each
    side in one of n points at least, so that nothing is given up at the start. On either side of 1/2 it stays uniform,
    so that small steps still cross it. Coordinates of which nothing is favoured stay.
    """
    shift = np.array([axis.favoured for axis in axes])
    if not shift.any():
        return points
    from scipy.special import ndtr  # takes long to import

    least = min(0.5, 1 / max(1, len(points)))
    below = ndtr(-shift).clip(least, 1 - least)
    moved: Points = np.where(points < below, points / below, 1 + (points - below) / (1 - below)) / 2
    return np.where(shift != 0, moved, points)


def shortened(point: Points, mean: Points, sigma: float) -> Points:
    """`point`, (n,), drawn towards `mean` to the length of a long sample of an isotropic normal distribution.

    It can be told to an evolution strategy as one of its samples (Hansen, Injecting external solutions into CMA-ES,
    arXiv 1110.4181, section 3), so that it pulls the distribution without tearing it.
    """
    step, n = point - mean, len(point)
    longest = sigma * (math.sqrt(n) + 2 * n / (n + 2))
    nearer: Points = mean + step * min(1.0, longest / max(float(np.linalg.norm(step)), 1e-12))
    return nearer


def level_of(unit: float, levels: int) -> int:
    """Which of `levels` equal shares of the unit interval `unit` lies in, from 0."""
    return min(int(unit * levels), levels - 1)


def dimension_of(axes: Sequence[Axis]) -> int:
    """The number of coordinates; ValueError unless there is something to search."""
    if not axes:
        raise ValueError("nothing to search: every gene is frozen (benchmark=[] writes that one recipe)")
    return len(axes)


def default_population(dimension: int) -> int:
    """4 + floor(3 ln n) (arXiv 1604.00772, equation 48)."""
    return 4 + math.floor(3 * math.log(dimension))
