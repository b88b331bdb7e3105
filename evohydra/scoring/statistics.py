"""How sure a score is: intervals of a mean, and the paired comparison of two models on the same examples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy  # scipy.stats is loaded at its first use: it takes long
from numpy.typing import NDArray

from evohydra.scoring.job import Scores
from evohydra.scoring.repeats import NORMAL_95, Bounds, spread, within

RESAMPLES = 10_000
BATCH = 500  # resamples at a time, which bounds memory
SEED = 0


@dataclass(frozen=True)
class Interval:
    """The mean over benchmarks of mean scores with its 95 % interval; `n` examples in all."""

    score: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Gain:
    """Mean paired difference of two models with its 95 % bootstrap interval, and `p` of a two-sided sign-flip test.

    The test goes through all patterns of signs where there are at most 10 000, else through random ones.
    """

    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation of `n` pairs with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> RankCorrelation | None:
    """Of pairs, (n,) each; None for fewer than five, or where all numbers on one side are equal.

    The interval is that of Fisher's z with the variance 1.06 / (n - 3) (Fieller, Hartley and Pearson 1957).
    """
    count = len(one)
    if count < 5 or len(set(one)) < 2 or len(set(other)) < 2:
        return None
    value = float(scipy.stats.spearmanr(one, other).statistic)
    half = NORMAL_95 * math.sqrt(1.06 / (count - 3))
    z = math.atanh(min(max(value, -1 + 1e-12), 1 - 1e-12))
    return RankCorrelation(value, math.tanh(z - half), math.tanh(z + half), count)


def interval(scores: Scores) -> Interval:
    """Wilson's interval for one benchmark of zeros and ones, else the percentile bootstrap within benchmarks."""
    arrays = [np.asarray(values, dtype=np.float64) for values in scores.values()]
    mean = _mean(arrays)
    count = sum(len(values) for values in arrays)
    if len(arrays) == 1 and np.isin(arrays[0], (0.0, 1.0)).all():
        wilson = scipy.stats.binomtest(int(arrays[0].sum()), count).proportion_ci(method="wilson")
        return Interval(mean, float(wilson.low), float(wilson.high), count)
    return Interval(mean, *_bootstrapped(arrays), count)


def paired_gain(better: Scores, other: Scores) -> Gain:
    """How much `better` scores above `other`, example by example; ValueError unless both saw the same examples."""
    if {name: len(values) for name, values in better.items()} != {name: len(v) for name, v in other.items()}:
        raise ValueError("a paired comparison needs scores of both models on the same examples")
    differences = [np.subtract(values, other[name]) for name, values in better.items()]
    return Gain(_mean(differences), *_bootstrapped(differences), _sign_flip_p(differences))


def mean_of_runs(runs: Sequence[Scores], bounds: Bounds | None = None) -> Gain:
    """The mean score of several runs on the same examples with its 95 % interval, see `crossed`; p against 0.

    bounds: between which the mean lies whatever the runs; the interval stays within them. Where all scores are at one
    of them, it is Wilson's for the examples of one run.
    """
    found = crossed([{name: np.asarray(values, np.float64) for name, values in run.items()} for run in runs])
    if bounds is None:
        return found
    low, high = bounds
    if found.low == found.high and found.difference in bounds and high > low:
        count = sum(len(values) for values in runs[0].values())
        wilson = scipy.stats.binomtest(0 if found.difference == low else count, count).proportion_ci(method="wilson")
        return replace(found, low=low + (high - low) * wilson.low, high=low + (high - low) * wilson.high)
    told = spread([{name: np.asarray(values, np.float64) for name, values in run.items()} for run in runs])
    quantile = float(scipy.stats.t.ppf(0.975, told.freedom(len(runs))))
    low, high = within(found.difference, told.error(len(runs)), quantile, bounds)
    return replace(found, low=low, high=high)


def gain_of_runs(better: Sequence[Scores], other: Sequence[Scores], bounds: Bounds | None = None) -> Gain:
    """How much runs of one strategy score above those of another, run by run (of one seed) and example by example.

    bounds: between which differences lie, where the interval ends. ValueError unless there are as many of both and all
    saw the same examples; two pairs of runs are the least.
    """
    gain = crossed(differences_of_runs(better, other))
    if bounds is None:
        return gain
    return replace(gain, low=max(gain.low, bounds[0]), high=min(gain.high, bounds[1]))


def differences_of_runs(better: Sequence[Scores], other: Sequence[Scores]) -> list[dict[str, NDArray[np.float64]]]:
    """For each pair of runs the differences of scores by benchmark; ValueError where examples differ."""
    for one, two in zip(better, other, strict=True):
        if {name: len(values) for name, values in one.items()} != {name: len(v) for name, v in two.items()}:
            raise ValueError("a paired comparison needs scores of both strategies on the same examples")
    return [
        {name: np.subtract(values, two[name]) for name, values in one.items()}
        for one, two in zip(better, other, strict=True)
    ]


def crossed(runs: Sequence[Mapping[str, NDArray[np.float64]]]) -> Gain:
    """The mean of a table of runs x examples against 0, both taken as samples of many more.

    As for readers x cases in Hillis 2007 (Statistics in Medicine 26, 596-619): the variance of the mean is
    [MS(runs) + max(MS(examples) - MS(runs x examples), 0)] / (runs examples), and Student's t has
    (runs - 1) [MS(runs) + max(...)]^2 / MS(runs)^2 degrees of freedom. Of several benchmarks, which share the runs, the
    examples' parts are added. ValueError for fewer than two runs.
    """
    if len(runs) < 2:
        raise ValueError(f"expected two or more runs, got {len(runs)}")
    told = spread(runs)
    difference, error = float(np.mean([_mean(list(run.values())) for run in runs])), told.error(len(runs))
    if error == 0.0:
        return Gain(difference, difference, difference, float(difference == 0.0))
    freedom = told.freedom(len(runs))
    half = float(scipy.stats.t.ppf(0.975, freedom)) * error
    return Gain(
        difference, difference - half, difference + half, float(2 * scipy.stats.t.sf(abs(difference) / error, freedom))
    )


def holm(p: Sequence[float]) -> list[float]:
    """Each p-value of a family of tests, corrected so that one false alarm among all is as rare as its value says.

    Holm 1979, Scandinavian Journal of Statistics 6, 65-70; scipy has no such correction.
    """
    corrected = [0.0] * len(p)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        largest = max(largest, min(1.0, (len(p) - place) * p[index]))
        corrected[index] = largest
    return corrected


def _mean(arrays: Sequence[NDArray[np.float64]]) -> float:
    return float(np.mean([values.mean() for values in arrays]))


def _bootstrapped(arrays: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """The 95 % interval of the mean over benchmarks of their means: examples drawn with replacement in each."""
    # scipy refuses a sample of one. Twice the same example is drawn as the one would be.
    samples = [values if len(values) > 1 else np.repeat(values, 2) for values in arrays]

    def mean(*drawn: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        means: NDArray[np.float64] = np.mean([values.mean(axis=axis) for values in drawn], axis=0)
        return means

    found = scipy.stats.bootstrap(
        samples, mean, method="percentile", n_resamples=RESAMPLES, batch=BATCH, vectorized=True, rng=SEED
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _sign_flip_p(differences: Sequence[NDArray[np.float64]]) -> float:
    """The share of sign flips whose mean over benchmarks is as far from 0 as the observed one, that one counted in."""
    shares = np.concatenate([values / len(values) for values in differences])
    if len(shares) < 2:  # which scipy refuses; both signs are equally far
        return 1.0

    def distance(flipped: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        rounded: NDArray[np.float64] = np.abs(flipped.sum(axis=axis)).round(12)  # equal means are to count as equal
        return rounded

    return float(
        scipy.stats.permutation_test(
            (shares,),
            distance,
            permutation_type="samples",
            alternative="greater",
            n_resamples=RESAMPLES,
            batch=BATCH,
            vectorized=True,
            rng=SEED,
        ).pvalue
    )
