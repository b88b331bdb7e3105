"""Intervals of several runs stay within the range of scores; how many runs it would take."""

import numpy as np
import pytest
import scipy.stats

from evohydra.scoring.repeats import Spread, bounds_of, runs_for_half_width, runs_to_settle, within
from evohydra.scoring.statistics import gain_of_runs, mean_of_runs


def test_two_runs_that_differ_have_an_interval_of_accuracies() -> None:
    runs = [{"a": [1.0, 1.0, 0.0, 1.0, 0.0]}, {"a": [0.0, 0.0, 0.0, 1.0, 0.0]}]
    free = mean_of_runs(runs)
    assert free.low < 0 < 1 < free.high  # what a sweep showed before
    bound = mean_of_runs(runs, bounds_of(runs))
    assert bound.difference == pytest.approx(0.4)
    assert 0 < bound.low < bound.difference < bound.high < 1
    assert bound.p == free.p


def test_the_interval_of_the_logit_by_hand() -> None:
    low, high = within(0.2, 0.05, 2.0, (0.0, 1.0))
    half = 2.0 * 0.05 / (0.2 * 0.8)
    assert (low, high) == pytest.approx(tuple(scipy.special.expit(scipy.special.logit(0.2) + np.array([-half, half]))))
    assert within(2.0, 0.5, 2.0, None) == (1.0, 3.0)
    assert within(0.0, 0.5, 2.0, (-1.0, 1.0)) == pytest.approx(tuple(2 * scipy.special.expit([-2.0, 2.0]) - 1))


def test_where_all_runs_get_everything_right_the_examples_bound_it() -> None:
    runs = [{"a": [1.0] * 20}, {"a": [1.0] * 20}]
    wilson = scipy.stats.binomtest(20, 20).proportion_ci(method="wilson")
    found = mean_of_runs(runs, (0.0, 1.0))
    assert (found.low, found.high) == pytest.approx((wilson.low, 1.0))


@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_intervals_of_a_few_runs_hold_the_truth_as_often_as_they_say(rate: float) -> None:
    generator, held, trials = np.random.default_rng(0), 0, 500
    for _ in range(trials):
        skill = np.clip(rate + 0.05 * generator.normal(size=(4, 1)), 0, 1)
        runs = [{"a": row.astype(float).tolist()} for row in generator.random((4, 100)) < skill]
        found = mean_of_runs(runs, (0.0, 1.0))
        held += found.low <= rate <= found.high
    assert 0.92 <= held / trials <= 0.985


def test_bounds_are_those_of_what_is_weighted() -> None:
    unit = [{"a": [0.0, 1.0], "b": [0.5]}]
    assert bounds_of(unit) == (0.0, 1.0)
    assert bounds_of(unit, {"a": 2.0, "b": -1.0}) == (-1.0, 2.0)
    assert bounds_of([{"a": [-0.1]}]) is None


def test_differences_end_where_scores_do() -> None:
    gain = gain_of_runs([{"a": [1.0, 1.0]}, {"a": [1.0, 0.0]}], [{"a": [0.0, 0.0]}] * 2, (-1.0, 1.0))
    assert gain.high == 1.0
    assert gain.low >= -1.0


def test_how_many_runs_it_takes_is_what_simulated_sweeps_need() -> None:
    """With the number that is told, a true difference is found in about four sweeps of five."""
    generator, size, spread = np.random.default_rng(1), 0.05, Spread(0.05**2, 0.0)
    needed = runs_to_settle(spread, size)
    assert needed is not None
    found = sum(
        scipy.stats.ttest_1samp(size + 0.05 * generator.normal(size=needed), 0).pvalue < 0.05 for _ in range(1000)
    )
    assert 0.76 <= found / 1000 <= 0.9
    half = runs_for_half_width(spread, 0.02)
    assert half is not None
    assert scipy.stats.t.ppf(0.975, half - 1) * 0.05 / half**0.5 <= 0.02
    assert scipy.stats.t.ppf(0.975, half - 2) * 0.05 / (half - 1) ** 0.5 > 0.02


def test_too_few_examples_are_no_matter_of_runs() -> None:
    assert runs_for_half_width(Spread(0.0, 0.05**2), 0.05) is None
    assert runs_to_settle(Spread(0.01, 0.05**2), 0.05) is None
    assert runs_to_settle(Spread(0.01, 0.0), 0.0) is None
