"""Intervals and paired tests against published values, exact enumeration, scipy, and constructed data."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from evohydra.scoring.statistics import gain_of_runs, holm, interval, mean_of_runs, paired_gain
from evohydra.searching.objectives import Objective, finite


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        # R. G. Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 17 (1998),
        # table I, method 3 (the score method without continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_as_published(right: int, total: int, low: float, high: float) -> None:
    found = interval({"a": [1.0] * right + [0.0] * (total - right)})
    assert (found.score, found.n) == (right / total, total)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@given(right=st.integers(0, 50), wrong=st.integers(1, 50))
def test_wilson_intervals_by_their_formula(right: int, wrong: int) -> None:
    n, z = right + wrong, scipy.stats.norm.ppf(0.975)
    p = right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = interval({"a": [1] * right + [0] * wrong})
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_bootstrap_intervals_of_other_scores_like_scipy() -> None:
    values = np.random.default_rng(4).gamma(2.0, size=80)
    found = interval({"a": values.tolist()})
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    spread = values.std() / math.sqrt(80)
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.1 * spread)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.1 * spread)
    assert found.score == pytest.approx(values.mean())
    assert found == interval({"a": values.tolist()})  # the same in every report


def test_each_benchmark_counts_the_same_whatever_its_size() -> None:
    scores = {"small": [1.0] * 10, "large": [0.0] * 990}
    assert interval(scores).score == Objective().fitness(scores) == 0.5
    assert interval(scores).n == 1000
    assert (interval(scores).low, interval(scores).high) == (0.5, 0.5)  # nothing varies within either of them
    pair = {"a": [0.0, 1.0] * 50, "b": [0.0, 1.0] * 50}
    one = {"a": [0.0, 1.0] * 50}
    width = interval(pair).high - interval(pair).low
    assert width == pytest.approx((interval(one).high - interval(one).low) / math.sqrt(2), rel=0.1)


def test_a_constant_gain_is_certain() -> None:
    other = np.random.default_rng(1).random(40)
    gain = paired_gain({"a": (other + 0.25).tolist()}, {"a": other.tolist()})
    assert (gain.difference, gain.low, gain.high) == pytest.approx((0.25, 0.25, 0.25))
    assert gain.p == pytest.approx(1 / 10_001)  # only the observed signs, of 2^40, are as far; counted in once


def test_no_difference_is_no_gain() -> None:
    scores = {"a": [0.0, 1.0, 1.0], "b": [0.5, 0.25]}
    gain = paired_gain(scores, scores)
    assert (gain.difference, gain.low, gain.high, gain.p) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("count", [1, 3, 6, 8])
def test_sign_flip_p_of_equal_gains(count: int) -> None:
    """Of the 2^n sign patterns exactly two, all plus and all minus, are as far from 0: p = 2 / 2^n."""
    exact = 2 / 2**count
    error = math.sqrt(exact * (1 - exact) / 10_000)
    gain = paired_gain({"a": [1.0] * count}, {"a": [0.0] * count})
    assert gain.p == pytest.approx(exact, abs=5 * error + 1e-4)


@pytest.mark.parametrize("shift", [0.0, 0.3, -0.8])
def test_sign_flip_p_by_enumeration(shift: float) -> None:
    differences = np.random.default_rng(8).normal(shift, 1.0, size=10)
    means = [np.mean(signs * differences) for signs in itertools.product((-1, 1), repeat=10)]
    exact = np.mean(np.abs(means) >= abs(differences.mean()) - 1e-12)
    gain = paired_gain({"a": differences.tolist()}, {"a": [0.0] * 10})
    assert gain.p == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 10_000) + 1e-4)


def test_sign_flip_p_counts_ties() -> None:
    """Of scores 0 and 1 many patterns of signs are exactly as far as the observed one, as in the binomial test."""
    better, other = [1.0] * 131 + [0.0] * 119, [0.0] * 131 + [1.0] * 119
    exact = scipy.stats.binomtest(131, 250).pvalue
    gain = paired_gain({"a": better}, {"a": other})
    assert gain.p == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 10_000))


def test_one_example_says_nothing() -> None:
    gain = paired_gain({"a": [0.7]}, {"a": [0.2]})
    assert (gain.difference, gain.low, gain.high, gain.p) == pytest.approx((0.5, 0.5, 0.5, 1.0))
    found = interval({"a": [0.7]})
    assert (found.score, found.low, found.high, found.n) == pytest.approx((0.7, 0.7, 0.7, 1))


def test_sign_flip_p_over_two_benchmarks_by_enumeration() -> None:
    """Each benchmark's mean counts the same, as in the difference itself."""
    a, b = np.array([1.0, 0.5, -0.25, 2.0, 1.0]), np.array([0.3, 0.1, 0.2])
    means = [
        (np.mean(s * a) + np.mean(t * b)) / 2
        for s in itertools.product((-1, 1), repeat=5)
        for t in itertools.product((-1, 1), repeat=3)
    ]
    observed = (a.mean() + b.mean()) / 2
    exact = np.mean(np.abs(means) >= observed - 1e-12)
    gain = paired_gain({"a": a.tolist(), "b": b.tolist()}, {"b": [0.0] * 3, "a": [0.0] * 5})
    assert gain.difference == pytest.approx(observed)
    assert gain.p == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 10_000) + 1e-4)


def test_pairing_counts() -> None:
    """Two models that err on the same examples are told apart where independent samples would not be."""
    shared = np.random.default_rng(2).random(60)
    other = shared + np.random.default_rng(3).normal(0.02, 0.01, 60)
    gain = paired_gain({"a": other.tolist()}, {"a": shared.tolist()})
    assert gain.p < 0.001
    assert gain.low > 0
    theirs = scipy.stats.bootstrap((other - shared,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    assert (gain.low, gain.high) == pytest.approx(tuple(theirs.confidence_interval), abs=2e-4)
    swapped = paired_gain({"a": shared.tolist()}, {"a": other.tolist()})
    assert swapped.difference == pytest.approx(-gain.difference)
    assert scipy.stats.ttest_ind(other, shared).pvalue > 0.5


def test_scores_of_other_examples_cannot_be_paired() -> None:
    for other in ({"a": [1.0]}, {"b": [1.0, 0.0]}, {"a": [1.0, 0.0], "b": [1.0]}):
        with pytest.raises(ValueError, match="same examples"):
            paired_gain({"a": [1.0, 0.0]}, other)


def test_failures_count_as_the_worst_score_seen() -> None:
    nan, infinite = float("nan"), float("inf")
    assert finite([0.5, None, nan, -infinite, infinite], [0.4, None]) == [0.5, 0.4, 0.4, 0.4, 0.4]
    assert finite([0.5, None], [0.9]) == [0.5, 0.5]
    assert finite([None, nan], [None]) == [0.0, 0.0]
    assert finite([-3.0, None], []) == [-3.0, -3.0]


def test_runs_against_each_other_is_students_paired_test_where_examples_do_not_matter():
    """One example in each run: nothing but the runs' differences is left, and Hillis' test is Student's."""
    better, other = [0.9, 0.7, 0.8, 0.95], [0.5, 0.65, 0.7, 0.6]
    gain = gain_of_runs([{"a": [value]} for value in better], [{"a": [value]} for value in other])
    expected = scipy.stats.ttest_rel(better, other)
    assert gain.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (gain.low, gain.high) == pytest.approx((interval.low, interval.high))


def test_runs_against_each_other_by_hand():
    """Two runs, two examples: mean 0.5; MS of runs 0.04, of examples 0.36, rest 0; the sums of squares by hand."""
    table = [{"a": [0.7, 0.1]}, {"a": [0.9, 0.3]}]
    gain = gain_of_runs(table, [{"a": [0.0, 0.0]}] * 2)
    error, freedom = np.sqrt((0.04 + 0.36) / 4), 1 * ((0.04 + 0.36) / 0.04) ** 2
    assert gain.difference == pytest.approx(0.5)
    assert gain.p == pytest.approx(2 * scipy.stats.t.sf(0.5 / error, freedom))
    assert mean_of_runs(table) == gain


@pytest.mark.parametrize(("seeds", "spread"), [(5, 0.3), (3, 0.3), (5, 0.0)])
def test_equal_strategies_are_told_apart_as_rarely_as_p_says(seeds: int, spread: float):
    generator = np.random.default_rng(0)
    alarms, trials = 0, 400
    for _ in range(trials):
        hardness, runs = generator.normal(size=60), []
        for _strategy in range(2):
            taste = 0.7 * generator.normal(size=60)  # what a strategy is good at by chance
            skill = spread * generator.normal(size=(seeds, 1))
            right = generator.random((seeds, 60)) < 1 / (1 + np.exp(-(hardness + taste + skill)))
            runs.append([{"a": row.astype(float).tolist()} for row in right])
        alarms += gain_of_runs(*runs).p < 0.05
    assert 0.02 <= alarms / trials <= 0.09


def test_runs_that_cannot_be_compared():
    with pytest.raises(ValueError, match="two or more runs"):
        gain_of_runs([{"a": [1.0]}], [{"a": [0.0]}])
    with pytest.raises(ValueError, match="same examples"):
        gain_of_runs([{"a": [1.0]}] * 2, [{"a": [0.0, 1.0]}] * 2)
    same = gain_of_runs([{"a": [1.0, 0.0]}] * 3, [{"a": [1.0, 0.0]}] * 3)
    assert (same.difference, same.p) == (0.0, 1.0)


def test_holms_correction():
    """The example of Holm's procedure worked out by hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, and the largest so far."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
