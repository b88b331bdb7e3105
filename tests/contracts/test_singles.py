"""What optimizers keep to that take single results: for asynchronous searches."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evohydra.searching.optimizers import Optimizer, StateIsData
from evohydra.searching.optimizers.random import RandomSearch
from evohydra.searching.optimizers.singles import NAMES, OneByOne, Result, one_by_one
from tests.contracts.discovery import BASELINES, names
from tests.contracts.test_mixed_optimizers import MIXED
from tests.contracts.test_mixed_optimizers import make as make_mixed
from tests.contracts.test_optimizers import DIMENSION, make, sphere

OPTIMIZERS = names("optimizer")
Values = NDArray[np.float64]
Event = tuple[int, Values | None]  # the number of an ask and its genome; of a result, None


def able(name: str, **settings: Any) -> OneByOne:
    return one_by_one(make(name, **settings))


def result(genome: Values, value: float) -> Result:
    return Result(genome, value, np.array([value]), 0.0, np.array([value, value / 2]))


def flown(
    optimizer: OneByOne,
    workers: int,
    budget: int,
    score: Callable[[Values], float],
    seed: int = 3,
    size: int = DIMENSION,
) -> tuple[list[Event], list[float]]:
    """All that was asked and told, and what the results were, where `workers` are done in random order."""
    order, events, scores = np.random.default_rng(seed), list[Event](), list[float]()
    pending: dict[int, Values] = {}
    asked = 0
    while len(scores) < budget:
        while len(pending) < workers and asked < budget:
            genome = optimizer.ask_one(asked, together(pending, size))
            assert genome.dtype == np.float64
            assert ((genome >= 0) & (genome <= 1)).all()
            events.append((asked, genome.copy()))
            pending[asked] = genome
            asked += 1
        number = list(pending)[int(order.integers(len(pending)))]
        genome = pending.pop(number)
        scores.append(score(genome))
        optimizer.tell_one(number, result(genome, scores[-1]))
        events.append((number, None))
    optimizer.close()
    return events, scores


def together(pending: dict[int, Values], size: int = DIMENSION) -> NDArray[np.float64]:
    return np.array(list(pending.values())).reshape(len(pending), size)


def near(genome: Values) -> float:
    return float(sphere(genome[None])[0])


def asked(events: list[Event]) -> NDArray[np.float64]:
    return np.array([genome for _, genome in events if genome is not None])


def test_the_list_names_those_that_can() -> None:
    def can(name: str) -> bool:
        made: Optimizer = make(name)
        made.close()
        return bool(getattr(made, "takes_singles", False))

    assert [name for name in OPTIMIZERS if can(name)] == list(NAMES)


@pytest.mark.parametrize("name", BASELINES)
def test_others_are_refused_with_the_list(name: str) -> None:
    with pytest.raises(ValueError, match=r"search=steady: expected an optimizer .*one of bipop, bo, .*sep_cmaes.*got"):
        one_by_one(make(name))


@pytest.mark.parametrize(
    ("name", "settings"), [("pso", {"pertube_best": True}), ("ga", {"n_offsprings": 4}), ("nsga2", {"n_offsprings": 1})]
)
def test_settings_for_generations_alone_are_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="as it is set"):
        able(name, **settings)


@pytest.mark.parametrize("workers", [1, 3, 25])
@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_results_decides(name: str, workers: int) -> None:
    one, _ = flown(able(name), workers, 50, near)
    again, _ = flown(able(name), workers, 50, near)
    np.testing.assert_array_equal(asked(one), asked(again))
    assert [number for number, _ in one] == [number for number, _ in again]
    assert len(np.unique(asked(one), axis=0)) == 50
    if workers > 1 and not isinstance(able(name), RandomSearch):
        other, _ = flown(able(name), workers, 50, near, seed=4)
        assert not np.array_equal(asked(one), asked(other))


@pytest.mark.parametrize("name", NAMES)
def test_goes_on_from_what_was_asked_and_told(name: str) -> None:
    """A second one that is asked and told the first half again asks for the second half, too."""
    events, _ = flown(able(name), 5, 48, near)
    again = able(name)
    pending: dict[int, Values] = {}
    for at, (number, genome) in enumerate(events):
        if genome is None:
            told = pending.pop(number)
            again.tell_one(number, result(told, near(told)))
            continue
        if not isinstance(again, StateIsData) or at > len(events) // 2:
            np.testing.assert_array_equal(again.ask_one(number, together(pending)), genome)
        pending[number] = genome
    again.close()


@pytest.mark.parametrize("name", NAMES)
def test_starting_points_come_first(name: str) -> None:
    start = np.array([np.zeros(DIMENSION), np.linspace(0, 1, DIMENSION)])
    events, _ = flown(able(name, start=start), 4, 40, near)
    np.testing.assert_array_equal(asked(events)[:2], start)


@pytest.mark.parametrize("name", NAMES)
def test_learns(name: str) -> None:
    """The last genomes are much better than the first ones, with one worker and with eight."""
    if isinstance(able(name), RandomSearch):
        pytest.skip("random search does not learn")
    for workers in (1, 8):
        for seed in (1, 2):
            _, scores = flown(able(name, seed=seed), workers, 100 if name == "bo" else 400, near)
            if name == "bo":  # it explores to the end
                assert max(scores) > max(scores[:12]) / 8
            else:
                assert np.mean(scores[-30:]) > np.mean(scores[:30]) / 4


@pytest.mark.parametrize("name", NAMES)
def test_survives_equal_fitness_and_failures(name: str) -> None:
    for score in (lambda genome: 0.0, lambda genome: -1e6 if genome[0] > 0.5 else near(genome)):
        events, _ = flown(able(name), 7, 60, score)
        assert len(asked(events)) == 60


@pytest.mark.parametrize("name", NAMES)
def test_takes_genes_of_all_kinds(name: str) -> None:
    def score(genome: Values) -> float:
        return -float(((genome - 0.3) ** 2).sum())

    events, _ = flown(one_by_one(make_mixed(name, MIXED)), 6, 60, score, size=len(MIXED))
    assert asked(events).shape == (60, len(MIXED))
    if name in ("bo", "catcma", "cmawm"):  # they ask for the middle of a level
        for at, axis in enumerate(MIXED):
            if axis.levels:
                levels = (np.arange(axis.levels) + 0.5) / axis.levels
                np.testing.assert_allclose(np.abs(asked(events)[:, at, None] - levels).min(axis=1), 0, atol=1e-15)


@pytest.mark.parametrize("name", ["cmaes", "sep_cmaes", "ipop", "bipop"])
def test_cmaes_starts_again_and_forgets_what_was_asked_before(name: str) -> None:
    optimizer = able(name, dimension=2)
    events, _ = flown(optimizer, 4, 1500, lambda genome: -float(((genome - 0.4) ** 2).sum()), size=2)
    steps = np.array([asked(events)[at : at + 12].std(axis=0).max() for at in range(0, 1500, 12)])
    collapsed = int((steps < 1e-4).argmax())
    assert 0 < collapsed < 120
    assert steps[collapsed:].max() > 0.05


def test_bo_believes_what_is_pending() -> None:
    """It does not ask for the same place again while that is pending."""
    optimizer = able("bo", dimension=2, population=12)
    first = [optimizer.ask_one(number, np.empty((0, 2))) for number in range(12)]
    for number, genome in enumerate(first):
        optimizer.tell_one(number, result(genome, -float(((genome - 0.4) ** 2).sum())))
    alone = optimizer.ask_one(12, np.empty((0, 2)))
    beside = optimizer.ask_one(12, alone[None])
    assert np.abs(alone - beside).max() > 1e-3
    np.testing.assert_array_equal(alone, optimizer.ask_one(12, np.empty((0, 2))))


@pytest.mark.parametrize("name", ["cmaes", "de", "nsga2", "map_elites", "bo"])
def test_several_objectives(name: str) -> None:
    optimizer = one_by_one(make(name, dimension=3))
    pending: dict[int, Values] = {}
    for number in range(60):
        pending[number] = genome = optimizer.ask_one(number, together(pending, 3))
        if number >= 3:
            told = pending.pop(number - 3)
            values = np.array([-((told - 0.2) ** 2).sum(), -((told - 0.8) ** 2).sum()])
            optimizer.tell_one(number - 3, Result(told, float(values.mean()), values, 0.0, values))
    assert genome.shape == (3,)
    optimizer.close()
