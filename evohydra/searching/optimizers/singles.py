"""Asynchronous search: strategies that are asked for one genome at a time, and told each result when it arrives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from evohydra.searching.optimizers import Optimizer, Points

Values = NDArray[np.float64]
Sample = TypeVar("Sample")
# The options of conf/optimizer that can do so, for messages.
NAMES = (
    "bipop",
    "bo",
    "catcma",
    "cmaes",
    "cmawm",
    "de",
    "ga",
    "ipop",
    "lra_cmaes",
    "m2n2",
    "map_elites",
    "nsga2",
    "optuna",
    "pso",
    "random",
    "sep_cmaes",
)


@dataclass(frozen=True)
class Result:
    """What is known of a genome, (dimension,), once it is scored. All is finite, larger is better.

    objectives: (objectives,), the fitness where there are not several. error_bar: of the fitness, 0 if none is known.
    scores: (examples,), for strategies that compare genomes example by example; empty for others.
    """

    genome: Values
    fitness: float
    objectives: Values
    error_bar: float
    scores: Values


@runtime_checkable
class TakesSingles(Protocol):
    """A strategy that can be asked while other genomes are being scored, and is told results in any order.

    What it asks follows from its seed and from the order of asks and tells alone. Either `ask` and `tell` are called,
    or these. takes_singles: whether it can, with the settings that it has.
    """

    takes_singles: bool

    def ask_one(self, number: int, pending: Points) -> Values:
        """Genome `number`, from 0, of the search: (dimension,), in the unit cube.

        pending: (k, dimension), what was asked and is not told yet, in that order.
        """
        ...

    def tell_one(self, number: int, result: Result) -> None:
        """Learn from the genome that was asked as `number`."""
        ...


class OneByOne(Optimizer, TakesSingles, Protocol):
    """An optimizer that takes single results."""


def one_by_one(optimizer: Optimizer) -> OneByOne:
    """The same optimizer; ValueError, with those that can, where it needs whole generations."""
    if isinstance(optimizer, TakesSingles) and optimizer.takes_singles:
        return optimizer
    raise ValueError(
        f"search=steady: expected an optimizer that takes single results (one of {', '.join(NAMES)}), got "
        f"{type(optimizer).__name__}, which needs whole generations as it is set; choose one of these, or "
        "search=generations"
    )


class Blocks(Generic[Sample]):
    """Results in the order in which they arrive, for strategies that learn from a whole population at a time.

    Each block is the next `population` results that arrive, whichever distribution they were drawn from.
    """

    def __init__(self) -> None:
        self._open: dict[int, Sample] = {}
        self._arrived: list[tuple[Sample, Values, float]] = []

    def ask(self, number: int, sample: Sample) -> None:
        """Genome `number` is asked; `sample` is what the strategy is told of it."""
        self._open[number] = sample

    def tell(
        self, number: int, result: Result, population: int
    ) -> tuple[Sequence[Sample], Points, NDArray[np.float64]] | None:
        """Samples, genomes and fitness of a block where this result is its last one; else None."""
        sample = self._open.pop(number, None)
        if sample is None:  # asked before a restart
            return None
        self._arrived.append((sample, result.genome, result.fitness))
        if len(self._arrived) < population:
            return None
        samples, genomes, fitness = zip(*self._arrived, strict=True)
        self._arrived = []
        return samples, np.array(genomes), np.array(fitness)

    def forget(self) -> None:
        """The strategy starts again: what is open was drawn from a distribution that is gone."""
        self._open, self._arrived = {}, []
