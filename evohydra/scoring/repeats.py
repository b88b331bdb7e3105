"""Scores of several runs: intervals that stay within the range of scores, and how many runs it would take."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from evohydra.scoring.job import Scores

Bounds = tuple[float, float]
UNIT: Bounds = (0.0, 1.0)
HALF = 0.05  # of an interval that is narrow enough, as a share of the range of scores
WIDE = 0.5  # of an interval that tells next to nothing, as a share of the range of scores
MOST = 1000  # runs that are thought of
NORMAL_95 = 1.959964


def bounds_of(runs: Sequence[Scores], weights: Mapping[str, float] | None = None) -> Bounds | None:
    """Between which numbers the mean of such scores lies, as weighted by an objective; None where that is not known.

    Scores are taken to have the range from 0 to 1 where all of them lie in it, as accuracies do.
    """
    if any(not 0.0 <= value <= 1.0 for run in runs for values in run.values() for value in values):
        return None
    if weights is None:
        return UNIT
    return sum(min(weight, 0.0) for weight in weights.values()), sum(max(weight, 0.0) for weight in weights.values())


def within(mean: float, error: float, quantile: float, bounds: Bounds | None) -> Bounds:
    """The interval mean +- quantile x error; with `bounds` that of the logit of the mean, which stays between them.

    The standard error of the logit follows from that of the mean (delta method; Brown, Cai and DasGupta, Interval
    Estimation for a Binomial Proportion, 2001, section 4.2.1). At a bound itself there is no logit.
    """
    half = quantile * error
    if bounds is None or half == 0.0:
        return mean - half, mean + half
    low, high = bounds
    share = (mean - low) / (high - low)
    if not 0.0 < share < 1.0:
        return max(low, mean - half), min(high, mean + half)
    centre = math.log(share / (1 - share))
    half /= (high - low) * share * (1 - share)
    return low + (high - low) * _logistic(centre - half), low + (high - low) * _logistic(centre + half)


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


@dataclass(frozen=True)
class Spread:
    """Variances of the mean of a table of runs x examples.

    of_runs: what one run adds, which n runs divide by n. of_examples: what the examples add, which all runs share.
    """

    of_runs: float
    of_examples: float

    def error(self, runs: int) -> float:
        """The standard error of the mean of so many runs."""
        return math.sqrt(self.of_runs / runs + self.of_examples)

    def freedom(self, runs: int) -> float:
        """The degrees of freedom of Student's t, see `statistics.crossed`; infinite where runs do not differ."""
        if not self.of_runs:
            return math.inf
        return (runs - 1) * ((self.of_runs / runs + self.of_examples) / (self.of_runs / runs)) ** 2


def spread(runs: Sequence[Mapping[str, NDArray[np.float64]]]) -> Spread:
    """Of two or more runs on the same examples; of several benchmarks, which share the runs, examples' parts are added.

    Hillis 2007, see `statistics.crossed`.
    """
    count, benchmarks = len(runs), len(runs[0])
    means = np.array([np.mean([values.mean() for values in run.values()]) for run in runs])  # (run,)
    of_examples = 0.0
    for name in runs[0]:
        table = np.stack([run[name] for run in runs])  # (run, example)
        if table.shape[1] < 2:
            continue
        rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
        square = (rest**2).sum() / (rest.shape[0] - 1) / (rest.shape[1] - 1)
        between = table.mean(axis=0).var(ddof=1) * count
        of_examples += max(between - square, 0.0) / table.size / benchmarks**2
    return Spread(float(means.var(ddof=1)), float(of_examples))


def runs_for_half_width(found: Spread, half: float) -> int | None:
    """The smallest number of runs whose 95 % interval reaches `half` to both sides, if the spread stays what it is.

    None where more runs do not bring it so far: there are too few examples.
    """
    return _first(lambda runs: float(scipy.stats.t.ppf(0.975, found.freedom(runs))) * found.error(runs) <= half)


def runs_to_settle(found: Spread, difference: float) -> int | None:
    """The smallest number of pairs of runs that show a true difference at the 5 % level four times in five.

    `found` is the spread of differences. None where more runs do not: there are too few examples.
    """

    def enough(runs: int) -> bool:
        freedom = found.freedom(runs)
        return float(scipy.stats.t.ppf(0.975, freedom) + scipy.stats.t.ppf(0.8, freedom)) * found.error(runs) <= abs(
            difference
        )

    return _first(enough) if difference else None


def _first(enough: Callable[[int], bool]) -> int | None:
    if not enough(MOST):
        return None
    low, high = 2, MOST
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
