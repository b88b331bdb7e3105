"""What each strategy is there for: restarts, noise, fronts, archives, niches, soups and grids."""

import math
import sys
from typing import Any

import cmaes
import hydra.utils
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.optimize import rosen

from evohydra.checks import check_below
from evohydra.searching.fronts import on_front
from evohydra.searching.optimizers import LearnsFromExamples, LearnsFromObjectives
from evohydra.searching.optimizers.grid import Grid, Line
from evohydra.searching.optimizers.m2n2 import M2N2, attraction, competition
from evohydra.searching.optimizers.map_elites import MapElites
from evohydra.searching.optimizers.restarts import bipop, ipop
from evohydra.searching.optimizers.soup import GreedySoup, ingredients
from evohydra.spaces.genes import Axis
from tests.contracts.discovery import SEARCHES, settings_of

Values = NDArray[np.float64]


def make(name: str, dimension: int, seed: int = 1, **settings: Any) -> Any:
    spec = settings_of("optimizer", name) | settings
    return hydra.utils.instantiate(spec)(axes=(Axis(),) * dimension, seed=seed)


def test_ipop_doubles_its_population_at_each_restart() -> None:
    strategy = make("ipop", 2)
    sizes = []
    for _ in range(250):
        genomes = strategy.ask()
        sizes.append(len(genomes))
        strategy.tell(genomes, -((genomes - 0.4) ** 2).sum(axis=1))
    runs = [size for at, size in enumerate(sizes) if at == 0 or size != sizes[at - 1]]
    assert runs[:3] == [6, 12, 24]


def test_ipop_starts_anywhere_and_finds_what_the_first_run_missed() -> None:
    """A wide hill near the middle, and a high narrow one in a corner."""

    def fitness(x: Values) -> Values:
        wide, narrow = ((x - 0.6) ** 2).sum(axis=1), ((x - 0.1) ** 2).sum(axis=1)
        value: Values = np.exp(-20 * wide) + 3 * np.exp(-100 * narrow)
        return value

    best = dict.fromkeys(("cmaes", "ipop", "bipop"), -np.inf)
    for name in best:
        strategy, evaluations = make(name, 2, seed=2), 0
        while evaluations < 5000:
            genomes = strategy.ask()
            evaluations += len(genomes)
            strategy.tell(genomes, fitness(genomes))
            best[name] = max(best[name], fitness(genomes).max())
    assert best["cmaes"] < 1.1
    assert best["ipop"] > 2.9
    assert best["bipop"] > 2.9


def test_the_regimes_of_bipop() -> None:
    """By hand from Hansen (2009): large runs double, small ones follow the formula and get half of the evaluations."""
    draws = np.random.default_rng(5)
    runs = bipop(10, 0.3, np.random.default_rng(5))
    assert next(runs).population == 10
    regime = runs.send(100)
    assert (regime.population, regime.sigma, regime.anywhere, regime.limit) == (20, 0.3, True, math.inf)
    regime = runs.send(400)  # 400 evaluations of the large regime, none of the small one
    few, smaller = 10 * (0.5 * 20 / 10) ** (draws.random() ** 2), 0.3 * 10 ** (-2 * draws.random())
    assert (regime.population, regime.sigma, regime.limit) == (math.floor(few), smaller, 200)
    regime = runs.send(150)
    few, smaller = 10 * (0.5 * 20 / 10) ** (draws.random() ** 2), 0.3 * 10 ** (-2 * draws.random())
    assert (regime.population, regime.sigma) == (math.floor(few), smaller)
    regime = runs.send(250)  # both have 400 now
    assert (regime.population, regime.sigma) == (40, 0.3)
    regime = runs.send(1000)
    few = 10 * (0.5 * 40 / 10) ** (draws.random() ** 2)
    assert (regime.population, regime.limit) == (math.floor(few), 500)
    assert [next(grown).population for grown in [ipop(5, 0.3, draws, factor=1.5)] for _ in range(3)] == [5, 8, 12]


def test_learning_rate_adaptation_helps_under_noise() -> None:
    """Where noise is as large as what there is to gain, the mean of the distribution ends nearer to the optimum."""

    def distance(name: str, seed: int) -> float:
        strategy, luck = make(name, 8, seed), np.random.default_rng(seed)
        for _ in range(400):
            genomes = strategy.ask()
            strategy.tell(genomes, -((genomes - 0.35) ** 2).sum(axis=1) + 0.1 * luck.normal(size=len(genomes)))
        return float(np.linalg.norm(strategy._strategy.mean - 0.35))

    plain, adapted = (np.mean([distance(name, seed) for seed in (1, 2, 3)]) for name in ("cmaes", "lra_cmaes"))
    assert adapted < plain / 2


def test_lra_is_the_packages_own() -> None:
    ours = make("lra_cmaes", 4, seed=2, population=8)
    seed = int(np.random.SeedSequence(2).spawn(1)[0].generate_state(1)[0])
    theirs = cmaes.CMA(np.full(4, 0.5), 1 / 6, np.tile([0.0, 1.0], (4, 1)), 100, seed, 8, lr_adapt=True)
    for _ in range(10):
        genomes = ours.ask()
        np.testing.assert_array_equal(genomes, expected := np.array([theirs.ask() for _ in range(8)]))
        ours.tell(genomes, -np.array([rosen(x) for x in genomes]))
        theirs.tell([(x, rosen(x)) for x in expected])


def zdt1(x: Values) -> Values:
    """Both larger is better; the front of Zitzler, Deb and Thiele's first problem is f2 = 1 - sqrt(f1)."""
    g = 1 + 9 * x[:, 1:].mean(axis=1)
    return -np.stack([x[:, 0], g * (1 - np.sqrt(x[:, 0] / g))], axis=1)


def test_nsga2_finds_the_front_of_zdt1() -> None:
    strategy = make("nsga2", 6, population=24)
    assert isinstance(strategy, LearnsFromObjectives)
    assert not any(isinstance(make(name, 6), LearnsFromObjectives) for name in ("ga", "pso"))
    told = []
    for _ in range(80):
        genomes = strategy.ask()
        told.append(zdt1(genomes))
        strategy.tell_objectives(genomes, told[-1])
    every = np.vstack(told)
    front = -every[on_front(every)]
    assert len(front) > 24
    assert np.abs(front[:, 1] - (1 - np.sqrt(front[:, 0]))).max() < 0.15
    assert front[:, 0].min() < 0.05
    assert front[:, 0].max() > 0.8


def test_map_elites_fills_its_archives_and_each_objective_takes_its_turn() -> None:
    """Two tasks that cannot both be solved: the archive of each holds trade-offs, and the best at it."""
    strategy = MapElites(axes=(Axis(),) * 3, seed=1, cells=20)
    assert isinstance(strategy, LearnsFromObjectives)

    def objectives(x: Values) -> Values:
        off = ((x[:, 1:] - 0.5) ** 2).sum(axis=1)
        return np.stack([x[:, 0] - off, 1 - x[:, 0] - off], axis=1)

    strategy.tell_objectives(first := strategy.ask(), objectives(first))
    filled = [len(strategy._archive(quality)) for quality in (0, 1)]
    for _ in range(40):
        genomes = strategy.ask()
        strategy.tell_objectives(genomes, objectives(genomes))
    for quality in (0, 1):
        archive = strategy._archive(quality)
        assert len(archive) > filled[quality] + 5
        assert len(archive) >= 17
        assert archive.best_elite["objective"] > 0.95
    assert strategy._genomes.shape[0] <= 40  # what is no elite is forgotten


def test_map_elites_keeps_the_best_of_each_cell() -> None:
    strategy = MapElites(axes=(Axis(),), seed=1, cells=2, population=4)
    strategy.ask()
    values = np.array([[0.1, 0.0], [0.3, 0.1], [0.2, 1.0], [0.05, 0.9]])
    strategy.tell_objectives(np.array([[0.1], [0.2], [0.3], [0.4]]), values)
    first = strategy._archive(
        0
    )  # the quality is the first objective: one cell for low, one for high values of the other
    assert sorted(first.data("objective").tolist()) == [0.2, 0.3]
    second = strategy._archive(1)
    assert sorted(second.data("objective").tolist()) == [0.9, 1.0]


def test_competition_and_attraction_by_hand() -> None:
    scores = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]])
    shares = competition(scores, 1.0)
    np.testing.assert_allclose(shares, [[1 / 3, 1, 0, 0], [1 / 3, 0, 0, 0], [1 / 3, 0, 1, 0]])
    np.testing.assert_allclose(attraction(shares, 0), [0, 0, 1])  # the third solves what the first does not
    np.testing.assert_allclose(attraction(shares, 1), [1, 0, 1])
    np.testing.assert_allclose(competition(scores, 0.0), scores)
    np.testing.assert_allclose(competition(scores, 0.5)[:, 0], 1 / math.sqrt(3))


def test_m2n2_keeps_specialists_that_a_mean_would_drop() -> None:
    """Nine genomes solve the same three examples, one solves one that nobody else does."""
    strategy = M2N2(axes=(Axis(),), seed=1, population=10, archive=5)
    assert isinstance(strategy, LearnsFromExamples)
    genomes = strategy.ask()
    scores = np.tile([1.0, 1.0, 1.0, 0.0], (10, 1))
    scores[4] = [0, 0, 0, 1.0]
    strategy.tell_examples(genomes, scores.mean(axis=1), scores)
    assert genomes[4].tolist() in strategy._archive.tolist()
    parents = [strategy._parents(competition(strategy._positive(), 1.0)) for _ in range(50)]
    assert all(first != second for first, second in parents)  # complements


def test_a_child_of_m2n2_takes_after_each_parent_on_its_side_of_the_split() -> None:
    axes = (*(Axis(),) * 8, Axis("categorical", 2))
    strategy = M2N2(axes=axes, seed=1, mutation=0.0)
    strategy._archive = np.stack([np.zeros(9), np.ones(9)])
    for _ in range(50):
        child = strategy._child(0, 1)
        numbers = child[:8]
        share, other = numbers[0], numbers[-1]
        split = int((numbers == share).sum())
        np.testing.assert_allclose(numbers[split:], 1 - share, atol=1e-12)
        assert split in (0, 8) or other == pytest.approx(1 - share)
        assert child[8] in (0.0, 1.0)


@given(arrays(np.float64, st.tuples(st.integers(2, 5), st.integers(1, 6)), elements=st.integers(0, 4)), st.data())
def test_the_soup_is_the_one_stirred_by_hand(start: Values, data: st.DataObject) -> None:
    start = start / 4
    target = np.array(data.draw(st.lists(st.floats(0, 1), min_size=start.shape[1], max_size=start.shape[1])))

    def fitness(x: Values) -> Values:
        values: Values = -((x - target) ** 2).sum(axis=1)
        return values

    points = ingredients(start)
    first, *others = np.argsort(-fitness(points), kind="stable")
    kept, best, expected = [first], fitness(points)[first], []
    for at in others:
        expected.append(points[[*kept, at]].mean(axis=0))
        if (score := fitness(expected[-1][None])[0]) >= best:
            kept, best = [*kept, at], score
    strategy = GreedySoup(axes=(Axis(),) * start.shape[1], seed=1, start=start)
    np.testing.assert_array_equal(strategy.ask(), start)
    strategy.tell(start, fitness(start))
    for point in expected:
        np.testing.assert_allclose(genomes := strategy.ask(), point[None], rtol=0, atol=1e-12)
        strategy.tell(genomes, fitness(point[None]))
    assert not len(strategy.ask())


def test_the_uniform_merge_is_no_ingredient() -> None:
    sources = np.array([[1.0, 0.0], [0.0, 0.0], [0.5, 0.9]])
    np.testing.assert_array_equal(ingredients(np.vstack([sources, sources.mean(axis=0)])), sources)
    np.testing.assert_array_equal(ingredients(sources[:2]), sources[:2])


def test_the_grid_is_every_combination() -> None:
    axes = (Axis(), Axis("categorical", 3), Axis("integer", 9))
    grid = Grid(axes=axes, seed=1, start=np.array([[0.2, 0.5, 0.5]]), points=3)
    genomes = grid.ask()
    assert grid.population == len(genomes) == 1 + 3 * 3 * 3
    assert genomes[0].tolist() == [0.2, 0.5, 0.5]
    assert [sorted(set(column)) for column in genomes[1:].T] == [
        [0.0, 0.5, 1.0], [0.5 / 3, 0.5, 2.5 / 3], [0.5 / 9, 4.5 / 9, 8.5 / 9]
    ]  # fmt: skip
    grid.tell(genomes, np.zeros(len(genomes)))
    assert not len(grid.ask())


def test_lines_join_each_pair_of_sources() -> None:
    sources = np.eye(3)
    line = Line(axes=(Axis(),) * 3, seed=1, start=np.vstack([sources, sources.mean(axis=0)]), points=5)
    genomes = line.ask()
    assert line.population == len(genomes) == 4 + 3 * 3
    np.testing.assert_allclose(genomes.sum(axis=1), 1)
    assert [0.75, 0.25, 0.0] in genomes.tolist()


@pytest.mark.parametrize("make", [GreedySoup, Line])
def test_without_starting_points_there_is_nothing_to_mix(make: Any) -> None:
    with pytest.raises(ValueError, match=r"expected start=\[sources\] .*, got no starting points"):
        make(axes=(Axis(),), seed=1)


@pytest.mark.parametrize(("name", "module"), [("ga", "pymoo"), ("pso", "pymoo"), ("nsga2", "pymoo"),
                                              ("map_elites", "ribs")])  # fmt: skip
def test_a_missing_package_is_named(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for loaded in [each for each in sys.modules if each.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ValueError, match=rf"optimizer={name}: .*run `pip install -c constraints.txt -e '\.\[strategies\]'`"
    ):
        make(name, 2)


@pytest.mark.parametrize(("name", "settings", "expected"), [
    ("ga", {"population": 3}, "optimizer.population: expected a whole number of at least 4 and at most 100000, got 3"),
    ("m2n2", {"archive": 1}, "optimizer.archive: expected a whole number of at least 2 and at most 100000, got 1"),
    ("map_elites", {"cells": 1}, "optimizer.cells: expected a whole number of at least 2 and at most 100000, got 1"),
    ("grid", {"points": 1}, "optimizer.points: expected a whole number of at least 2 and at most 100000, got 1"),
])  # fmt: skip
def test_settings_that_make_no_sense(name: str, settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        check_below({**settings_of("optimizer", name), **settings}, "optimizer")


@pytest.mark.parametrize("name", [name for name in SEARCHES if name != "random"])
def test_what_fails_is_not_what_a_search_turns_to(name: str) -> None:
    """Most of the cube fails, which counts as the worst fitness so far; what is best lies just beside it."""
    strategy, seen = make(name, 4), [0.0]
    failed = []
    try:
        for _ in range(40):
            genomes = strategy.ask()
            fitness = -((genomes - 0.3) ** 2).sum(axis=1)
            fails = genomes[:, 0] > 0.4
            seen += fitness[~fails].tolist()
            strategy.tell(genomes, np.where(fails, min(seen), fitness))
            failed.append(fails.mean())
    finally:
        strategy.close()
    assert np.mean(failed[-10:]) < 0.6 * np.mean(failed[:1])


@pytest.mark.parametrize("name", ["nsga2", "ga", "pso", "de", "m2n2", "map_elites"])
def test_the_first_generation_lies_where_the_space_says_that_a_search_may_begin(name: str) -> None:
    """Of two levels the second one's share is that of a normal number below what is favoured: 0.841 and 0.067."""
    axes = (Axis("categorical", 2, 1.0), Axis("categorical", 2, -1.5), Axis("categorical", 2), Axis())
    maker = hydra.utils.instantiate(settings_of("optimizer", name))
    strategy = maker(axes=axes, seed=1, start=np.full((1, 4), 0.25), population=400)
    plain = maker(axes=(Axis(),) * 4, seed=1, start=np.full((1, 4), 0.25), population=400)
    first, uniform = strategy.ask(), plain.ask()
    strategy.close()
    plain.close()
    assert (first > 0.5).mean(axis=0)[:3] == pytest.approx([0.841, 0.067, 0.5], abs=0.06)
    assert first.min() >= 0
    assert first.max() <= 1
    np.testing.assert_array_equal(first[:, 2:], uniform[:, 2:])  # nothing is favoured there
    assert (first[0] == 0.25).all()  # known points stay where they are
