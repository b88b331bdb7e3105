"""Genomes that have both kinds of scores: how well log-likelihoods rank as the metric does, and a scale for both."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evohydra.scoring.benchmarks.likelihood import measure_of
from evohydra.scoring.statistics import RankCorrelation, rank_correlation
from evohydra.searching.objectives import Objective

Means = Mapping[str, float]  # of each benchmark
LOW = 0.5  # a rank correlation that is surely below it is too low to search by
ENOUGH = 8  # genomes, below which no correlation is surely too low: its interval is rough
LEAST = 8  # genomes that a scale is made of, where there are so many


@dataclass(frozen=True)
class Both:
    """The mean log-likelihoods and the mean scores by the metric of one recipe, by benchmark."""

    likely: Means
    metric: Means


@dataclass(frozen=True)
class Scale:
    """Makes of a score by the metric what it corresponds to among log-likelihoods.

    slope: above 0 and the same for all benchmarks, so that genomes are ranked as by the metric.
    """

    slope: float
    offsets: Means

    def __call__(self, metric: Means) -> dict[str, float]:
        """The mean of each benchmark on the scale of log-likelihoods."""
        return {name: self.offsets[name] + self.slope * mean for name, mean in metric.items()}


def ranks(both: Sequence[Both], objective: Objective) -> RankCorrelation | None:
    """How well log-likelihoods rank genomes as the metric does; None where too few differ."""
    return rank_correlation(*_fitness(both, objective))


def too_low(found: RankCorrelation | None) -> bool:
    """Whether it is surely below LOW."""
    return found is not None and found.n >= ENOUGH and found.high < LOW


def scale_of(both: Sequence[Both], objective: Objective) -> Scale:
    """The scale of the better half of these genomes, one or more, by their log-likelihoods.

    Its slope is the ratio of the standard deviations of both kinds of fitness; 1 where one of them does not vary.
    """
    likely, metric = (np.array(values) for values in _fitness(both, objective))
    better = (-likely).argsort(kind="stable")[: max(LEAST, len(both) // 2)]
    spreads = float(likely[better].std()), float(metric[better].std())
    slope = spreads[0] / spreads[1] if min(spreads) > 1e-12 else 1.0
    offsets = {
        name: float(np.mean([both[at].likely[name] - slope * both[at].metric[name] for at in better]))
        for name in both[0].metric
    }
    return Scale(slope, offsets)


def is_likelihood(names: Iterable[str]) -> bool:
    """Whether some of these names of scores are those of likelihoods."""
    return measure_of(names) is not None


def _fitness(both: Sequence[Both], objective: Objective) -> tuple[list[float], list[float]]:
    likely, metric = (
        [objective.fitness({name: [mean] for name, mean in means.items()}) for means in kind]
        for kind in ([each.likely for each in both], [each.metric for each in both])
    )
    return likely, metric
