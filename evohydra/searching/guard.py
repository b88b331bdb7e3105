"""Limits that a winner has to keep: scored beside the fitness, told to strategies, and tested on validation."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from evohydra.recipe import Node
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.job import Job, MachineError
from evohydra.scoring.measures import DISTANCE, PERPLEXITY, TOKENS, name_of
from evohydra.searching.bounds import BEST, Bound
from evohydra.searching.ledger import Record
from evohydra.searching.scheduler import Pending, Scheduler
from evohydra.searching.scores import LIMITS

ONE_SIDED, TWO_SIDED = 0.95, 0.975
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Limit:
    """The mean of a measure is to be at least (sign 1) or at most (sign -1) a bound. benchmark: None of a distance."""

    measure: str
    benchmark: str | None
    sign: int
    bound: Bound
    said: str

    @property
    def name(self) -> str:
        """What its numbers are called."""
        return name_of(self.measure, self.benchmark)

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.name} {'at least' if self.sign > 0 else 'at most'} {self.said}"


@dataclass(frozen=True)
class Kept:
    """How a model keeps a limit on `n` examples of a split.

    value, bound: of the measure. margin: by how much the limit is kept, below 0 where it is broken, as a share of the
    bound for numbers of tokens, and for perplexities the logarithm of bound / value. low: the end of the margin's
    interval, which is one-sided (95 %) unless `high` is given, and two-sided then.
    """

    limit: str
    value: float
    bound: float
    margin: float
    low: float
    high: float | None
    n: int


@dataclass
class Guard:
    """The limits of a run. models: sources and base by name. sizes: examples by split and benchmark.

    examples: of each benchmark, for each genome of the search. validated: whether there is a validation split.
    """

    limits: Sequence[Limit]
    models: Mapping[str, Node]
    sizes: Mapping[Split, Mapping[str, int]]
    examples: int
    validated: bool
    _references: dict[tuple[Split, str], Mapping[str, Sequence[float]]] = field(default_factory=dict)
    _best: dict[str, str] = field(default_factory=dict)

    def job(self, recipe: Node, split: Split) -> Job:
        """The numbers of all limits of a recipe on a split."""
        names = {limit.name: self._size(limit, split) for limit in self.limits}
        return Job(recipe, split, {name: tuple(range(size)) for name, size in names.items()})

    def _size(self, limit: Limit, split: Split) -> int:
        if limit.benchmark is None:
            return 1
        size = self.sizes[split][limit.benchmark]
        return min(size, self.examples) if split == "search" else size

    def submit(self, scheduler: Scheduler, labelled: Sequence[tuple[str, Node]], split: Split) -> list[Pending]:
        """Have recipes scored, whose labels these are; no job is cut into parts, for measures are of whole ones."""
        jobs = [(f"{LIMITS}{label}", self.job(recipe, split)) for label, recipe in labelled]
        return scheduler.submit(jobs, whole=True)

    def judged(
        self, scheduler: Scheduler, pending: Pending, split: Split, *, two_sided: bool = False
    ) -> list[Kept] | None:
        """How a recipe keeps each limit; None where it could not be scored.

        Of a search the low end is the one that validation would have with as many examples as it has.
        """
        scores = scheduler.result(pending).scores
        if not scores:
            return None
        return [self._kept(scheduler, limit, scores[limit.name], split, two_sided) for limit in self.limits]

    def _kept(self, scheduler: Scheduler, limit: Limit, values: Sequence[float], split: Split, two_sided: bool) -> Kept:
        reference = self._reference(scheduler, limit, split)
        if reference and limit.bound.factor != 1.0 and float(np.mean(reference)) < 0:
            raise ValueError(
                f"guard: {limit.text}: a multiple of {float(np.mean(reference)):.3f}, which is below 0, is not what it "
                "looks like; expected a difference, such as source best - 0.1"
            )
        bounds = _bounds(limit, reference)
        above = limit.sign * (np.asarray(values) - bounds)  # (n,)
        demanded = self._size(limit, "validation") if split == "search" and self.validated else len(above)
        share = limit.measure not in (TOKENS, DISTANCE, PERPLEXITY)
        half = half_width(above, max(demanded, 1), TWO_SIDED if two_sided else ONE_SIDED, share=share)
        bound = float(np.mean(bounds))
        scale = abs(bound) if limit.measure == TOKENS and bound else 1.0
        margin, half = float(above.mean()) / scale, half / scale
        low, high = margin - half, margin + half
        if limit.bound.reference is None and share and all(0.0 <= value <= 1.0 for value in values):
            ends = limit.sign * -bound, limit.sign * (1.0 - bound)  # where a share is 0, and 1
            low, high = max(low, min(ends)), min(high, max(ends))
        told = high if two_sided else None
        value = float(np.mean(values))
        if limit.measure == PERPLEXITY:
            value, bound = math.exp(value), math.exp(bound)
        return Kept(limit.text, value, bound, margin, low, told, len(above))

    def _reference(self, scheduler: Scheduler, limit: Limit, split: Split) -> Sequence[float] | None:
        if limit.bound.reference is None:
            return None
        return self._numbers(scheduler, self._referred(scheduler, limit), split)[limit.name]

    def _referred(self, scheduler: Scheduler, limit: Limit) -> str:
        """The model that a bound refers to; the best source is that of the search split, in the limit's direction."""
        assert limit.bound.reference is not None
        if limit.bound.reference != BEST:
            return limit.bound.reference
        if limit.name not in self._best:
            means = {
                name: limit.sign * float(np.mean(self._numbers(scheduler, name, "search")[limit.name]))
                for name in self.models
                if name != "base"
            }
            self._best[limit.name] = max(means, key=lambda name: means[name])
        return self._best[limit.name]

    def _numbers(self, scheduler: Scheduler, name: str, split: Split) -> Mapping[str, Sequence[float]]:
        if (split, name) not in self._references:
            (pending,) = self.submit(scheduler, [(name, self.models[name])], split)
            evaluation = scheduler.result(pending)
            if evaluation.error is not None:
                failure = MachineError if evaluation.given_up else ValueError
                raise failure(f"guard: {name} could not be scored on the {split} split: {evaluation.error}")
            self._references[split, name] = evaluation.scores
        return self._references[split, name]

    def limited(self, scheduler: Scheduler, record: Record, pending: Pending) -> Record:
        """The record of a genome with its margins: what has to be 0 or more of each limit.

        One whose numbers cannot be had has failed, as one without scores has.
        """
        kept = self.judged(scheduler, pending, "search")
        if kept is not None:
            return replace(record, limits={each.limit: round(each.low, 9) for each in kept})
        evaluation = scheduler.result(pending)
        return replace(
            record,
            fitness=None,
            scores={},
            objectives={},
            examples=None,
            error_bar=None,
            error=evaluation.error,
            given_up=evaluation.given_up,
        )


def _bounds(limit: Limit, reference: Sequence[float] | None) -> "float | Numbers":
    """What the numbers of a model are compared with, example by example where the bound is a model's.

    Those of a perplexity are its logarithm's, and the bound is moved there: the mean of these numbers is the logarithm
    of factor x perplexity + offset.
    """
    factor, offset = limit.bound.factor, limit.bound.offset
    if limit.measure != PERPLEXITY:
        return factor * np.asarray(reference) + offset if reference else offset
    if not reference:
        return math.log(offset)
    mean = float(np.mean(reference))
    at_most = factor * math.exp(mean) + offset
    if at_most < 1:
        raise ValueError(f"guard: {limit.text}: that is {at_most:.3f}, and a perplexity is 1 or more")
    return np.asarray(reference) + (math.log(at_most) - mean)


def examples_for(margin: float, most: int = 10**5) -> int | None:
    """The examples on which a share is known to be kept (95 %, one-sided) that all of them keep by the same margin.

    None where `most` do not suffice.
    """

    def sure(count: int) -> bool:
        return margin >= half_width(np.full(count, margin), count, ONE_SIDED, share=True)

    return bisect_left(range(1, most), True, key=sure) + 1 if sure(most) else None


def half_width(above: Numbers, count: int, level: float, *, share: bool) -> float:
    """From the mean to the end of its interval, for `count` examples that differ as those of `above`, (n,), do.

    Where numbers are shares or scores, half an example above and below is added on each side (Agresti and Min 2005,
    Statistics in Medicine 24, 729-740, for paired shares): equal answers to a few examples are no certainty.
    """
    n = len(above)
    if n == 1 and not share:
        return 0.0
    total, squares = float(above.sum()), float((above**2).sum())
    if share:
        n, squares = n + 2, squares + 1.0
    variance = max(squares / n - (total / n) ** 2, 0.0) * n / max(n - 1, 1)
    size = count + 2 if share else count
    from scipy import stats  # late: limits are parsed before libraries are loaded

    return float(stats.t.ppf(level, max(size - 1, 1))) * math.sqrt(variance / size)


def sentence(kept: Kept) -> str:
    """How a limit is kept, for readers."""
    told = "kept" if kept.low >= 0 else "broken" if kept.margin < 0 else "not kept for sure"
    found = f"{kept.limit}: {told} ({kept.value:.3f} against {kept.bound:.3f}, margin {kept.margin:+.3f}"
    if kept.n == 1:  # a distance, which has no error
        return f"{found})"
    interval = f"{kept.low:+.3f}" if kept.high is None else f"{kept.low:+.3f} to {kept.high:+.3f}"
    end = "at least, 95 %" if kept.high is None else "95 %"
    return f"{found}, {interval} {end}, {kept.n} examples)"
