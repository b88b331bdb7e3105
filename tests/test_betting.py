"""Bets and races: how often they are wrong is bounded as stated, whatever the scores."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evohydra.recipe import Checkpoint, Node
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.job import Evaluation, Examples
from evohydra.searching.fitness.betting import surely_above
from evohydra.searching.fitness.generation import Generation, members_of
from evohydra.searching.fitness.order import shuffled
from evohydra.searching.fitness.racing import Racing
from evohydra.searching.ledger import Ledger
from evohydra.searching.objectives import Objective
from evohydra.searching.rounds import Rounds, Scoring
from tests.scripted import scheduling

TOTAL = 120


def populations(generator: np.random.Generator, mean: float) -> list[np.ndarray]:
    """All differences of two genomes, with this mean: two-valued, rare and large, and continuous ones."""
    ups = round(TOTAL * (0.35 + mean / 2))
    coarse = np.repeat([1.0, 0.0, -1.0], [ups, TOTAL - 2 * ups + round(TOTAL * mean), ups - round(TOTAL * mean)])
    rare = np.zeros(TOTAL)
    rare[: round(abs(mean) * TOTAL)] = np.sign(mean)
    smooth = generator.uniform(-0.5, 0.5, TOTAL)
    return [coarse, rare, smooth - smooth.mean() + mean]


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_a_bet_on_what_is_not_so_wins_no_more_often_than_stated(margin: float) -> None:
    """Looked at after every single example."""
    generator, alpha, runs = np.random.default_rng(1), 0.1, 600
    for values in populations(generator, -margin):
        assert values.mean() == pytest.approx(-margin)
        orders = np.array([generator.permutation(values) for _ in range(runs)])
        wrong = np.zeros(runs, dtype=bool)
        for seen in range(1, TOTAL):
            wrong |= surely_above(orders[:, :seen], TOTAL, 1.0, margin, alpha)
        assert wrong.mean() <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / runs)


def test_a_bet_on_what_is_so_wins_in_time() -> None:
    generator = np.random.default_rng(2)
    coarse, *_ = populations(generator, 0.2)
    orders = np.array([generator.permutation(coarse) for _ in range(200)])
    won = [surely_above(orders[:, :seen], TOTAL, 1.0, 0.1, 0.1).mean() for seen in (10, 40, 80, TOTAL)]
    assert won == sorted(won)
    assert won[1] > 0.5
    assert won[2] > 0.9
    assert won[3] == 1.0


def test_wealth_by_hand() -> None:
    """Three outcomes, of which the first is staked on by the prior alone: mean 1/2, variance 1/4."""
    differences = np.array([[1.0, -1.0, 1.0]])
    outcomes, null, wealth, best = [1.0, 0.0, 1.0], [], 1.0, 1.0
    for turn, outcome in enumerate(outcomes):
        expected = (10 * 0.4 - sum(outcomes[:turn])) / (10 - turn)  # the mean is 0.4 = (1 - 0.2) / 2 or less
        mean = (0.5 + sum(outcomes[:turn])) / (turn + 1)
        variance = (0.5 + sum(x**2 for x in outcomes[:turn])) / (turn + 1) - mean**2
        edge = mean - expected
        stake = min(max(edge / (variance + edge**2), 0.0), 0.75 / expected)
        wealth *= 1 + stake * (outcome - expected)
        null.append(expected)
        best = max(best, wealth)
    assert null == pytest.approx([0.4, 1 / 3, 0.375])
    assert surely_above(differences, 10, 1.0, 0.2, 1 / (best - 1e-9))[0]
    assert not surely_above(differences, 10, 1.0, 0.2, 1 / (best + 1e-9))[0]


class Table:
    """Scores from a table: (members, examples)."""

    def __init__(self, table: np.ndarray) -> None:
        self.table, self.asked = table, np.zeros(len(table), dtype=int)

    def expect(self, recipes: Sequence[Node]) -> None:
        pass

    def __call__(self, recipe: Node, split: Split, examples: Examples | None = None) -> Evaluation:
        assert isinstance(recipe, Checkpoint)
        row, places = int(recipe.name), range(TOTAL) if examples is None else examples["known"]
        self.asked[row] += len(places)
        return Evaluation({"known": [float(self.table[row, place]) for place in places]})


def race(directory: Path, table: np.ndarray, seed: int, **changes: float | None) -> tuple[list[float], np.ndarray]:
    """The fitness of each row, and how many examples it took."""
    settings: Any = {"first": 8, "growth": 1.5, "delta": 0.1, "margin": 0.1} | changes
    kind = Racing(sizes={"known": TOTAL}, seed=seed, **settings)
    evaluate = Table(table)
    fitness = judged(directory, kind, evaluate, {"known": TOTAL}, len(table), Objective())
    return fitness, evaluate.asked


def judged(
    directory: Path, kind: Racing, evaluate: Table, sizes: dict[str, int], count: int, objective: Objective
) -> list[float]:
    recipes = [Checkpoint(str(number), "-") for number in range(count)]
    members = members_of(0, np.zeros((count, 1)), [{}] * count, recipes)
    with closing(Ledger(directory, {})) as ledger, scheduling(evaluate, directory) as scheduler:
        generation = Generation(0, members, sizes, objective)
        rounds = Rounds(generation, Scoring(scheduler, sizes, objective), ledger)
        return [generation.record(each).fitness or 0.0 for each in rounds.judged(kind(generation))]


def test_a_race_selects_rightly_more_often_than_stated(tmp_path: Path) -> None:
    """Six of twelve; wrong is a selected one that is worse by the margin than one that is not."""
    generator, wrong, spent, runs = np.random.default_rng(3), 0, 0, 40
    for run in range(runs):
        skill = generator.uniform(0.3, 0.8, 12)
        table = (generator.random((12, TOTAL)) < skill[:, None]).astype(float)
        fitness, asked = race(tmp_path / str(run), table, run, delta=0.2 / 66)
        chosen = np.argsort(-np.array(fitness), kind="stable")[:6]
        others = np.setdiff1d(np.arange(12), chosen)
        wrong += table.mean(axis=1)[others].max() - table.mean(axis=1)[chosen].min() >= 0.1
        spent += asked.sum()
    assert wrong <= 0.2 * runs
    assert spent < 0.8 * runs * table.size


def test_without_a_margin_open_places_get_all_examples(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    table = (generator.random((6, TOTAL)) < 0.5).astype(float)
    fitness, asked = race(tmp_path, table, 1, delta=1e-9, margin=0.0)
    assert (asked == TOTAL).all()
    assert fitness == pytest.approx(table.mean(axis=1).tolist())


def test_a_race_ends_at_most(tmp_path: Path) -> None:
    table = np.tile(np.arange(TOTAL) % 2, (6, 1)).astype(float)
    table[:, :6] = np.eye(6)  # different, for equal recipes only are scored once
    fitness, asked = race(tmp_path, table, 1, most=20, margin=0.0)
    assert (asked == 20).all()
    assert len(set(np.round(fitness, 1))) <= 3


def test_scores_out_of_bounds_are_refused(tmp_path: Path) -> None:
    expected = r"fitness.bounds: expected scores between 0.0 and 1.0, but benchmark 'known' gave 3.0"
    with pytest.raises(ValueError, match=expected):
        race(tmp_path, np.full((4, TOTAL), 3.0), 1)


@pytest.mark.parametrize("most", [None, 20])
@pytest.mark.parametrize("example", ["first", "later"])
def test_a_score_that_is_no_number_fails_its_member_alone(tmp_path: Path, most: int | None, example: str) -> None:
    generator = np.random.default_rng(6)
    table = (generator.random((6, TOTAL)) < 0.5).astype(float)
    order = [place for _, place in shuffled({"known": TOTAL}, 1, 0)]
    at = order[3] if example == "first" else order[15]
    table[2, at] = np.nan
    fitness, asked = race(tmp_path, table, 1, margin=0.0, delta=1e-9, most=most)
    assert fitness[2] == 0.0  # which stands for none
    assert asked[2] == (8 if example == "first" else 18)
    others = np.delete(np.arange(6), 2)
    if most is None:
        assert [fitness[row] for row in others] == pytest.approx(table[others].mean(axis=1).tolist())
    else:
        assert [fitness[row] for row in others] == pytest.approx(
            table[np.ix_(others, order[:20])].mean(axis=1).tolist()
        )


class Two(Table):
    """1 on the small benchmark, 0 on the large one."""

    def __call__(self, recipe: Node, split: Split, examples: Examples | None = None) -> Evaluation:
        assert examples is not None
        return Evaluation({name: [float(name == "small")] * len(at) for name, at in examples.items() if at})


def test_weights_of_benchmarks_count(tmp_path: Path) -> None:
    """A benchmark of a few examples counts as much in the fitness as its weight says, whatever the order."""
    sizes = {"large": 90, "small": 10}
    kind = Racing(sizes=sizes, seed=1, first=8, growth=2, delta=0.1, margin=0.0)
    objective = Objective({"large": 1.0, "small": 3.0})
    assert judged(tmp_path, kind, Two(np.zeros((4, 1))), sizes, 4, objective) == [3.0] * 4
