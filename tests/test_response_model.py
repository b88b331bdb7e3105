"""Item response theory: known parameters are found again, and estimates are as good as their error bars say."""

import numpy as np
import pytest
from scipy.special import expit

from evohydra.searching.fitness.calibration import Adaptive, Random, calibrated
from evohydra.searching.fitness.estimators import Calibrated, gp_irt, mp_irt, p_irt
from evohydra.searching.fitness.response_model import Ability, Items, fit, information, locate

MODELS, EXAMPLES = 150, 80


@pytest.fixture(scope="module")
def known() -> tuple[Items, np.ndarray, np.ndarray]:
    """Items, abilities (models, 1), and responses."""
    generator = np.random.default_rng(1)
    items = Items(generator.lognormal(0.2, 0.5, (EXAMPLES, 1)), generator.normal(0, 1.5, EXAMPLES))
    abilities = generator.normal(0, 1.2, (MODELS, 1))
    return items, abilities, (generator.random((MODELS, EXAMPLES)) < items.chances(abilities)).astype(float)


def test_the_parameters_are_found_again(known: tuple[Items, np.ndarray, np.ndarray]) -> None:
    items, abilities, responses = known
    found, located = fit(responses)
    assert np.corrcoef(found.slopes[:, 0], items.slopes[:, 0])[0, 1] > 0.8
    assert np.corrcoef(found.offsets, items.offsets)[0, 1] > 0.97
    assert np.corrcoef(located[:, 0], abilities[:, 0])[0, 1] > 0.97
    assert np.abs(found.chances(located) - items.chances(abilities)).mean() < 0.06


def test_half_of_the_responses_are_enough(known: tuple[Items, np.ndarray, np.ndarray]) -> None:
    items, abilities, responses = known
    holes = np.where(np.random.default_rng(2).random(responses.shape) < 0.5, np.nan, responses)
    found, located = fit(holes)
    assert np.abs(found.chances(located) - items.chances(abilities)).mean() < 0.08


def test_two_dimensions_tell_two_skills_apart() -> None:
    generator = np.random.default_rng(3)
    abilities = generator.normal(0, 1.5, (120, 2))
    items = Items(np.repeat(np.eye(2), 40, axis=0) * 1.5, generator.normal(0, 1, 80))
    responses = (generator.random((120, 80)) < items.chances(abilities)).astype(float)
    errors = []
    for dimensions in (1, 2):
        found, located = fit(responses, dimensions)
        errors.append(np.abs(found.chances(located) - items.chances(abilities)).mean())
    assert errors[1] < 0.6 * errors[0]


def test_locate_finds_the_root_of_the_posterior() -> None:
    items = Items(np.array([[1.0], [2.0], [0.5]]), np.array([0.0, 1.0, -1.0]))
    scores, centre, spread = np.array([1.0, 0.0, 0.5]), np.array([0.3]), 0.8
    found = locate(items, np.arange(3), scores, centre, spread)
    chances = expit(items.slopes[:, 0] * found.mean[0] - items.offsets)
    gradient = (items.slopes[:, 0] * (scores - chances)).sum() - (found.mean[0] - 0.3) / spread**2
    assert gradient == pytest.approx(0, abs=1e-8)
    curvature = (items.slopes[:, 0] ** 2 * chances * (1 - chances)).sum() + 1 / spread**2
    assert found.covariance[0, 0] == pytest.approx(1 / curvature)
    assert information(items, found) == pytest.approx(
        chances * (1 - chances) * items.slopes[:, 0] ** 2 * found.covariance[0, 0]
    )


def test_information_is_largest_where_success_is_open() -> None:
    items = Items(np.ones((3, 1)), np.array([-3.0, 0.0, 3.0]))
    assert information(items, Ability(np.zeros(1), np.eye(1))).argmax() == 1


@pytest.mark.parametrize("estimator", [p_irt, gp_irt, mp_irt])
def test_estimates_keep_to_their_error_bars(estimator, known: tuple[Items, np.ndarray, np.ndarray]) -> None:
    """And chosen examples tell more than as many random ones."""
    items, abilities, responses = known
    told = Calibrated(items, np.zeros(1), 1.2, abilities[:2], 0.01)
    pool = np.random.default_rng(4).permutation(EXAMPLES).tolist()
    adaptive, random = Adaptive(told, estimator, pool, 6), Random(pool, EXAMPLES)
    deviations, misses = [], []
    for row in responses:
        places = pool[:6]
        while len(places) < 18:
            places = places + adaptive.further(places, row[places], 6)
        value, error = adaptive.estimate(places, row[places])
        deviations.append((value - row.mean()) / error)
        misses.append((value - row.mean(), random.estimate(pool[:18], row[pool[:18]])[0] - row.mean()))
    assert 0.6 < np.std(deviations) < 1.4
    assert abs(np.mean(deviations)) < 0.3
    chosen, drawn = np.sqrt(np.mean(np.square(misses), axis=0))
    assert chosen < 0.8 * drawn


def test_all_examples_leave_nothing_to_estimate(known: tuple[Items, np.ndarray, np.ndarray]) -> None:
    items, abilities, responses = known
    told = Calibrated(items, np.zeros(1), 1.0, abilities[:2], 0.1)
    found = p_irt(told, range(EXAMPLES), responses[0], 6)
    assert found.value == pytest.approx(responses[0].mean())
    assert found.error == pytest.approx(0)


def test_gp_irt_trusts_the_sample_more_the_more_the_model_is_off(known: tuple[Items, np.ndarray, np.ndarray]) -> None:
    """The weight of the mean by hand: b^2 / (s^2 / n + b^2) (arXiv 2402.14992, section 3.3)."""
    items, abilities, responses = known
    scores, places = responses[5, :10], range(10)
    for bias in (0.0, 0.05, 10.0):
        told = Calibrated(items, np.zeros(1), 1.0, abilities[:2], bias)
        model = p_irt(told, places, scores, 10).value
        variance = (((scores - scores.mean()) ** 2).sum() + 0.25) / 100 * (1 - 10 / EXAMPLES)
        share = bias**2 / (variance + bias**2)
        assert gp_irt(told, places, scores, 10).value == pytest.approx(share * scores.mean() + (1 - share) * model)


def test_continuous_scores_are_shares(known: tuple[Items, np.ndarray, np.ndarray]) -> None:
    items, abilities, _ = known
    found, located = fit(items.chances(abilities))
    assert np.abs(found.chances(located) - items.chances(abilities)).mean() < 0.02


def test_noise_is_found_to_be_noise(known: tuple[Items, np.ndarray, np.ndarray]) -> None:
    """The model is not used where it expects scores worse than genomes' means do."""
    _, _, responses = known
    found, told = calibrated(responses, 2, 1, [1])
    assert found is not None, told
    assert found.bias < 0.1
    noise = (np.random.default_rng(5).random((30, EXAMPLES)) < 0.5).astype(float)
    found, told = calibrated(noise, 2, 1, [1])
    assert found is None
    assert "log-loss" in told
