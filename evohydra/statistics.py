"""How sure a score is: intervals of a mean, and the paired comparison of two models on the same examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

RESAMPLES = 10_000
CHUNK = 500  # resamples at a time, which bounds memory
SEED = 0
Scores = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Interval:
    """The mean over benchmarks of mean scores with its 95 % interval; `n` examples in all."""

    score: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Gain:
    """Mean paired difference of two models with its 95 % bootstrap interval; `p` of a two-sided sign-flip test."""

    difference: float
    low: float
    high: float
    p: float


def interval(scores: Scores) -> Interval:
    """Wilson's interval for one benchmark of zeros and ones, else the percentile bootstrap within benchmarks."""
    arrays = [np.asarray(values, dtype=np.float64) for values in scores.values()]
    mean = _mean(arrays)
    count = sum(len(values) for values in arrays)
    if len(arrays) == 1 and np.isin(arrays[0], (0.0, 1.0)).all():
        wilson = binomtest(int(arrays[0].sum()), count).proportion_ci(method="wilson")
        return Interval(mean, float(wilson.low), float(wilson.high), count)
    low, high = np.quantile(_bootstrap(arrays), (0.025, 0.975))
    return Interval(mean, float(low), float(high), count)


def paired_gain(better: Scores, other: Scores) -> Gain:
    """How much `better` scores above `other`, example by example; ValueError unless both saw the same examples."""
    if {name: len(values) for name, values in better.items()} != {name: len(v) for name, v in other.items()}:
        raise ValueError("a paired comparison needs scores of both models on the same examples")
    differences = [np.subtract(values, other[name]) for name, values in better.items()]
    low, high = np.quantile(_bootstrap(differences), (0.025, 0.975))
    return Gain(_mean(differences), float(low), float(high), _sign_flip_p(differences))


def _mean(arrays: Sequence[NDArray[np.float64]]) -> float:
    return float(np.mean([values.mean() for values in arrays]))


def _bootstrap(arrays: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(RESAMPLES,) means over benchmarks of the means of examples drawn with replacement in each."""
    generator = np.random.default_rng(SEED)
    means = np.zeros(RESAMPLES)
    for values in arrays:
        for start in range(0, RESAMPLES, CHUNK):
            drawn = generator.integers(len(values), size=(CHUNK, len(values)))  # (resample, example)
            means[start : start + CHUNK] += values[drawn].mean(axis=1)
    return means / len(arrays)


def _sign_flip_p(differences: Sequence[NDArray[np.float64]]) -> float:
    """The share of random sign flips whose mean is as far from 0 as the observed one, that one counted in."""
    generator = np.random.default_rng(SEED)
    means = np.zeros(RESAMPLES)
    for values in differences:
        for start in range(0, RESAMPLES, CHUNK):
            signs = generator.integers(2, size=(CHUNK, len(values))) * 2 - 1  # (resample, example)
            means[start : start + CHUNK] += (signs * values).mean(axis=1)
    observed = abs(_mean(differences))
    as_far = int((np.abs(means / len(differences)) >= observed - 1e-12).sum())
    return (as_far + 1) / (RESAMPLES + 1)
