"""Objectives, fronts, the rules that pick from them, and what strategies are told of failures."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from evohydra.recipe import Checkpoint, Hop, LayerNames, Stack
from evohydra.report.front import front_figure
from evohydra.scoring.statistics import interval
from evohydra.searching.feedback import example_scores, objective_values, tell
from evohydra.searching.fronts import best_fitness, knee, nearest_to_ideal, on_front, picked
from evohydra.searching.ledger import Record
from evohydra.searching.objectives import Objective, each, path_length
from evohydra.searching.summary import different, front, scored_on_search

SCORES = {"ja": [1.0, 0.0, 1.0, 1.0], "math": [0.0, 1.0]}
MODEL = Checkpoint("a", "-")
PATH = Stack((MODEL,), (Hop(0, 0), Hop(0, 1), Hop(0, 1)), LayerNames("layers", "", "", ""))
VALUES = np.array([[0.0, 1.0], [0.2, 0.9], [0.7, 0.75], [0.9, 0.3], [1.0, 0.0], [0.5, 0.5]])  # the last is dominated


def record(index: int, scores: dict[str, list[float]], objectives: dict[str, float] | None = None) -> Record:
    fitness = Objective().fitness(scores) if scores else None
    return Record(index, 0, [0.5], {}, str(index), fitness, scores, objectives=objectives or {})


def test_the_fitness_is_the_mean_or_a_weighted_sum() -> None:
    assert Objective().fitness(SCORES) == (0.75 + 0.5) / 2
    assert Objective().several(SCORES, MODEL) == {}
    weighted = Objective({"math": 2.0, "ja": -1.0})
    assert weighted.fitness(SCORES) == 2 * 0.5 - 0.75
    assert interval(weighted.weighted(SCORES)).score == pytest.approx(weighted.fitness(SCORES))
    assert Objective().weighted(SCORES) == SCORES
    counting = Objective({"ja": 1.0, "math": 0.0}).weighted(SCORES)
    assert counting == {"ja": SCORES["ja"]}
    assert interval(counting).n == 4  # examples of what does not count are none


def test_several_objectives_by_name() -> None:
    assert Objective(parts=each).several(SCORES, MODEL) == {"ja": 0.75, "math": 0.5}
    assert Objective(parts=path_length).several(SCORES, PATH) == {"score": 0.625, "-hops": -3.0}


@pytest.mark.parametrize("weights", [{}, {"ja": 1.0}, {"ja": 1.0, "maths": 1.0}, {"ja": 1.0, "math": "much"},
                                     {"ja": 1.0, "math": float("nan")}, {"ja": 0.0, "math": 0}])  # fmt: skip
def test_weights_that_do_not_fit_are_an_error(weights: Any) -> None:
    with pytest.raises(ValueError, match=r"objective\.weights: expected .*, got"):
        Objective(weights).check(["ja", "math"], MODEL)


def test_only_paths_have_a_length() -> None:
    Objective(parts=path_length).check(["ja"], PATH)
    with pytest.raises(ValueError, match="choose merge=dfs"):
        Objective(parts=path_length).check(["ja"], MODEL)


@given(arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.integers(0, 5)))
def test_a_front_is_what_nothing_dominates(values: NDArray[np.float64]) -> None:
    def dominated(row: NDArray[np.float64]) -> bool:
        return any((other >= row).all() and (other > row).any() for other in values)

    best = on_front(values)
    assert best.any()
    assert best.tolist() == [not dominated(row) for row in values]
    order = picked(values, values.sum(axis=1), best_fitness, len(values))
    assert sorted(order) == list(range(len(values)))
    assert sorted(order[: best.sum()]) == np.flatnonzero(best).tolist()


def test_of_one_objective_the_order_is_that_of_its_values() -> None:
    values = np.array([0.3, 0.9, 0.3, 0.5])
    for rule in (best_fitness, nearest_to_ideal, knee):
        assert picked(values[:, None], values, rule, 4) == [1, 3, 0, 2]
        assert picked(values[:, None], values, rule, 2) == [1, 3]
        assert picked(np.array([]), np.array([]), rule, 3) == []


def test_the_rules() -> None:
    fitness = np.array([0.5, 0.55, 0.725, 0.6, 0.5, 2.0])
    assert picked(VALUES, fitness, best_fitness, 6) == [2, 3, 1, 0, 4, 5]
    assert picked(VALUES, fitness, nearest_to_ideal, 1) == [2]
    assert picked(VALUES, fitness, knee, 1) == [2]
    lopsided = np.array([[0.0, 1.0], [0.05, 0.99], [0.6, 0.42], [1.0, 0.0]])
    assert picked(lopsided, fitness[:4], knee, 1) == [1]  # farthest from the line between the ends
    assert picked(lopsided, fitness[:4], nearest_to_ideal, 1) == [2]
    stretched = lopsided * [1000.0, 0.1]
    assert picked(stretched, fitness[:4], nearest_to_ideal, 1) == [2]  # whatever the objectives are measured in


class Listening:
    """A strategy that keeps what it is told."""

    population = 3

    def __init__(self) -> None:
        self.told: list[NDArray[np.float64]] = []

    def ask(self) -> NDArray[np.float64]:
        return np.zeros((3, 1))

    def close(self) -> None: ...

    def tell(self, genomes: NDArray[np.float64], fitness: NDArray[np.float64]) -> None:
        self.told.append(fitness)


class ListeningToObjectives(Listening):
    def tell_objectives(self, genomes: NDArray[np.float64], objectives: NDArray[np.float64]) -> None:
        self.told.append(objectives)


class ListeningToExamples(Listening):
    def tell_examples(
        self, genomes: NDArray[np.float64], fitness: NDArray[np.float64], scores: NDArray[np.float64]
    ) -> None:
        self.told += [fitness, scores]


def test_each_strategy_is_told_what_it_learns_from_and_failures_are_worst() -> None:
    before = [record(0, {"ja": [0.0, 0.0], "math": [0.5]}, {"ja": 0.0, "math": 0.5})]
    now = [record(1, {"ja": [1.0, 0.0], "math": [1.0]}, {"ja": 0.5, "math": 1.0}), record(2, {})]
    genomes = np.zeros((2, 1))
    for strategy, expected in (
        (Listening(), [[0.75, 0.25]]),
        (ListeningToObjectives(), [[[0.5, 1.0], [0.0, 0.5]]]),
        (ListeningToExamples(), [[0.75, 0.25], [[1.0, 0.0, 1.0], [0.0, 0.0, 0.5]]]),
    ):
        tell(strategy, genomes, now, [*before, *now])
        assert [told.tolist() for told in strategy.told] == expected


def test_a_search_for_fitness_alone_has_one_objective() -> None:
    records = [record(0, {"ja": [1.0]}), record(1, {})]
    assert objective_values(records, records).tolist() == [[1.0], [1.0]]
    assert objective_values([record(2, {})], [*records, record(2, {})]).tolist() == [[1.0]]


def test_scores_on_different_examples_cannot_be_compared() -> None:
    records = [record(0, {"ja": [1.0, 0.0]}), record(1, {"ja": [1.0]})]
    with pytest.raises(ValueError, match="choose fitness=full"):
        example_scores(records, records)


def test_the_front_of_records_and_its_picture() -> None:
    records = [record(at, {"ja": [0.5]}, {"score": score, "-hops": -hops})
               for at, (score, hops) in enumerate([(0.9, 12), (0.5, 9), (0.4, 9), (0.6, 10), (0.2, 14)])]  # fmt: skip
    records.append(record(5, {}))
    found = front([(each.index, each.objectives) for each in records])
    assert [each["index"] for each in found] == [1, 3, 0]
    assert found[0] == {"index": 1, "score": 0.5, "-hops": -9}
    assert front([(0, {})]) == []
    figure = front_figure([r.objectives for r in records if r.objectives], records[3].objectives)
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("score", "hops (less is better)")
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[0.5, 9], [0.6, 10], [0.9, 12]]


def test_the_score_on_search_is_the_estimate_where_fitness_is_one() -> None:
    """And not the mean of examples that were chosen for this genome."""
    exact = Record(0, 0, [0.5], {}, "a", 0.5, {"ja": [1.0, 0.0, 1.0, 0.0]})
    assert scored_on_search(exact, Objective())["score"] == 0.5
    estimated = Record(0, 0, [0.5], {}, "a", 0.75, {"ja": [1.0, 0.0, 1.0, 0.0]}, error_bar=0.05)
    half = 1.959964 * 0.05 / (0.75 * 0.25)  # of the logit, so that the interval stays between 0 and 1
    low, high = (1 / (1 + np.exp(-(np.log(3) + sign * half))) for sign in (-1, 1))
    expected = {"score": 0.75, "low": low, "high": high, "n": 4}
    assert scored_on_search(estimated, Objective()) == pytest.approx(expected)


def test_a_front_has_each_recipe_once() -> None:
    """A strategy comes to the same path again and again: the same model is one point of the front."""
    told = [("a", 1.0, -3.0), ("b", 0.5, -2.0), ("a", 1.0, -3.0), ("c", 0.5, -2.0), ("b", 0.5, -2.0)]
    records = [
        Record(at, 0, [0.5], {}, recipe, score, {"x": [score]}, objectives={"score": score, "-hops": hops})
        for at, (recipe, score, hops) in enumerate(told)
    ]
    assert [each["index"] for each in front(different(records))] == [1, 3, 0]
