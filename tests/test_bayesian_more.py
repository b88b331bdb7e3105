"""optimizer=bo: outcome constraints, and an earlier run's genomes as data."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import approx_fprime
from scipy.stats import norm

from evohydra.searching.optimizers import LearnsFromConstraints, TakesEarlier
from evohydra.searching.optimizers.bo import BayesianOptimization
from evohydra.searching.optimizers.gaussian.acquisitions import Improvement
from evohydra.searching.optimizers.gaussian.features import Features
from evohydra.searching.optimizers.gaussian.limits import Limit, Limited, log_kept
from evohydra.searching.optimizers.gaussian.model import GaussianProcess, Hyperparameters
from evohydra.searching.optimizers.gaussian.ranges import Ranges
from evohydra.searching.optimizers.gaussian.transfer import LEAST, MOST, Earlier, Shifted, Transfer
from evohydra.spaces.genes import Axis

Values = NDArray[np.float64]
AXES = (Axis(),) * 3


def value(genomes: Values) -> Values:
    """Larger with each gene: the best genome is a corner that the limit forbids."""
    return np.asarray(genomes @ np.array([1.0, 0.7, 0.2]))


def slack(genomes: Values) -> Values:
    """At most 0.8 for the sum of the first two genes: the best value is 0.8 + 0.2."""
    return np.asarray(0.8 - genomes[:, 0] - genomes[:, 1])[:, None]


def searched(limited: bool, budget: int = 40, seed: int = 1) -> tuple[Values, BayesianOptimization]:
    made = BayesianOptimization(axes=AXES, seed=seed)
    every = np.empty((0, 3))
    while len(every) < budget:
        genomes = made.ask()
        made.tell(genomes, value(genomes))
        if limited:
            made.tell_constraints(genomes, slack(genomes))
        every = np.vstack([every, genomes])
    return every, made


def test_the_search_ends_at_the_best_genome_that_keeps_the_limit():
    genomes, made = searched(limited=True)
    assert isinstance(made, LearnsFromConstraints)
    kept = slack(genomes)[:, 0] >= 0
    assert value(genomes[kept]).max() > 0.97
    assert (slack(genomes)[12:, 0] >= -0.05).mean() > 0.8
    free, _ = searched(limited=False)
    assert value(free).max() > 1.85
    assert (slack(free)[12:, 0] >= 0).mean() < 0.2


def test_where_no_genome_keeps_the_limit_the_likeliest_to_keep_it_is_asked():
    def narrow(genomes: Values) -> Values:
        return np.asarray(0.05 - np.abs(genomes - np.array([0.9, 0.1, 0.5])).max(axis=1))[:, None]

    made, genomes = BayesianOptimization(axes=AXES, seed=2), np.empty((0, 3))
    while len(genomes) < 60:
        asked = made.ask()
        made.tell(asked, -value(asked))
        made.tell_constraints(asked, narrow(asked))
        genomes = np.vstack([genomes, asked])
    assert (narrow(genomes[:7]) < 0).all()
    assert (narrow(genomes) >= 0).any()


def limit(seed: int = 0) -> Limit:
    features = np.random.default_rng(seed).random((15, 3))
    return Limit.of(features, np.arange(3), slack(features)[:, 0])


def test_the_probability_of_keeping_a_limit_is_the_normal_one():
    one, points = limit(), np.random.default_rng(1).random((5, 3))
    mean, deviation = one.process.predict(points)
    expected = norm.logcdf((one.centre + one.scale * mean) / (one.scale * deviation))
    clipped = np.abs(one.margin(points)) < 19
    assert log_kept([one], points)[clipped] == pytest.approx(expected[clipped])
    assert log_kept([one, one], points) == pytest.approx(2 * log_kept([one], points))


def test_the_gradient_of_what_is_looked_for_is_its_own():
    features = np.random.default_rng(2).random((15, 3))
    process = GaussianProcess(features, np.arange(3), value(features) - 1, Hyperparameters(np.full(3, 0.8), 1.0, 0.01))
    improvement, point = Improvement(process, 0.5), np.array([0.41, 0.37, 0.6])
    for worth in (improvement, None):
        both = Limited([limit(), limit(3)], worth, improvement.slope if worth else None)
        told, gradient = both.slope(point)
        assert told == pytest.approx(float(both(point[None])[0]))
        assert gradient == pytest.approx(
            approx_fprime(point, lambda x, both=both: float(both(x[None])[0]), 1e-6), rel=1e-3, abs=1e-4
        )


def quadratic(genomes: Values, best: float) -> Values:
    return np.asarray(-((genomes - best) ** 2).sum(axis=1))


def earlier(best: float = 0.7, count: int = 60, genes: int = 6, seed: int = 5) -> Earlier:
    genomes = np.random.default_rng(seed).random((count, genes))
    return Earlier(genomes, 100 + 3 * quadratic(genomes, best))


def after(made: BayesianOptimization, budget: int, best: float = 0.72) -> float:
    found, count = -np.inf, 0
    while count < budget:
        genomes = made.ask()
        fitness = quadratic(genomes, best)
        made.tell(genomes, fitness)
        found, count = max(found, float(fitness.max())), count + len(genomes)
    return found


def test_an_earlier_run_of_nearly_the_same_saves_genomes():
    axes = (Axis(),) * 6
    with_data = [after(BayesianOptimization(axes=axes, seed=s, earlier=earlier()), 13) for s in (1, 2, 3)]
    without = [after(BayesianOptimization(axes=axes, seed=s), 13) for s in (1, 2, 3)]
    assert np.mean(with_data) > np.mean(without)
    assert np.mean(with_data) > -0.02


def test_an_earlier_run_that_ranks_nothing_is_left_out():
    axes = (Axis(),) * 6
    wrong = Earlier(earlier().genomes, -earlier().fitness)
    one, other = BayesianOptimization(axes=axes, seed=1, earlier=wrong), BayesianOptimization(axes=axes, seed=1)
    assert isinstance(one, TakesEarlier)
    assert after(one, 30) == after(other, 30)
    assert one.transferred == 0
    assert other.transferred is None


def test_transfer_can_be_turned_off():
    axes = (Axis(),) * 6
    off = BayesianOptimization(axes=axes, seed=1, earlier=earlier(), transfer=False)
    assert off.transferred is None
    assert after(off, 21) == after(BayesianOptimization(axes=axes, seed=1), 21)


def test_a_search_that_goes_on_asks_what_the_uninterrupted_one_would():
    axes = (Axis(),) * 6
    one, other = (BayesianOptimization(axes=axes, seed=4, earlier=earlier()) for _ in range(2))
    for _ in range(4):
        genomes = one.ask()
        one.tell(genomes, quadratic(genomes, 0.72))
        other.tell(genomes, quadratic(genomes, 0.72))
    assert one.transferred
    assert np.array_equal(one.ask(), other.ask())


def test_the_mean_of_an_earlier_run_shifts_the_process_and_its_gradient():
    axes, generator = (Axis(),) * 3, np.random.default_rng(6)
    features, ranges = Features.of(axes), Ranges.of(axes)
    transfer = Transfer.of(earlier(genes=3), features, ranges)
    seen = generator.random((12, 3))
    values = transfer.mean(seen) * 0.8 + 0.1 * generator.normal(size=12)
    weight = transfer.weight(seen, values)
    assert weight == pytest.approx(0.8, abs=0.2)
    shifted = Shifted(seen, features.gene, values, Hyperparameters.expected(3), None, transfer, weight)
    point = generator.random(3)
    mean, deviation, of_mean, of_deviation = shifted.gradients(point)
    assert (mean, deviation) == pytest.approx(tuple(float(each[0]) for each in shifted.predict(point[None])))
    numbers = [approx_fprime(point, lambda x, at=at: float(shifted.predict(x[None])[at][0]), 1e-6) for at in (0, 1)]
    assert of_mean == pytest.approx(numbers[0], rel=1e-3, abs=1e-4)
    assert of_deviation == pytest.approx(numbers[1], rel=1e-3, abs=1e-4)
    assert transfer.weight(seen[: LEAST - 1], values[: LEAST - 1]) == 0


def test_of_a_long_earlier_run_the_best_half_and_others_are_taken():
    axes = (Axis(),) * 3
    long = earlier(count=2 * MOST, genes=3)
    transfer = Transfer.of(long, Features.of(axes), Ranges.of(axes))
    assert len(transfer.process.values) == MOST
