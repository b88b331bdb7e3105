"""What limits (`guard`) keep to in every kind of search: on searches over recipes whose responses are known."""

import functools
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, cast

import pytest

from evohydra.recipe import Checkpoint, Node
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.executors import Executor
from evohydra.scoring.job import Evaluation, Examples
from evohydra.scoring.measures import SCORE, is_measure
from evohydra.searching.bounds import parse_bound
from evohydra.searching.driver import Candidate, choose, groups_of, search
from evohydra.searching.events import Events
from evohydra.searching.feasible import broken
from evohydra.searching.guard import Guard, Limit
from evohydra.searching.json_lines import LedgerError
from evohydra.searching.ledger import Ledger, Record
from evohydra.searching.limits_told import told_of_limits
from evohydra.searching.objectives import Objective, each
from evohydra.searching.rounds import Scoring
from evohydra.searching.scheduler import Scheduler
from evohydra.searching.scores import ScoreStore
from evohydra.searching.search_parts import SearchParts
from evohydra.searching.steady import Steady, search_steadily
from tests.commands import json_lines, write_lines
from tests.contracts.test_fitness import SIZES, Levels, Responses
from tests.contracts.test_fitness import make as kind
from tests.kill_repeatedly import on_file, scored_twice, without_seconds
from tests.scripted import local
from tests.test_steady import Crew, Numbers, Stopped, Stopping, maker
from tests.test_steady import kind as steady_kind

BUDGET, FORGET = 56, "third"
MODELS: dict[str, Node] = {name: Checkpoint(f"{name} 0.2", "-") for name in ("0.1", "0.2")}
LIMIT = Limit(SCORE, FORGET, 1, parse_bound("guard", "source best - 0.2", tuple(MODELS)), "source best - 0.2")
SEARCHES = [
    ("generations", "full", "de", 1),
    ("generations", "full", "m2n2", 1),
    ("generations", "racing", "cmaes", 1),
    ("generations", "irt", "cmaes", 1),
    ("generations", "subset", "cmaes", 1),
    ("generations", "likelihood", "bo", 1),
    ("generations", "each", "nsga2", 1),
    ("generations", "each", "bo", 1),
    ("steady", "full", "de", 1),
    ("steady", "full", "bo", 3),
    ("steady", "each", "nsga2", 3),
    ("steady", "racing fitness.fresh=false", "cmaes", 3),
    ("steady", "irt", "cmaes", 3),
]


class Forgetting:
    """Responses, and one more benchmark of 60 examples, of which a genome forgets the more the larger its x is.

    The best genome without a limit (x 0.7) solves 0.65 of them, the best source 0.95.
    """

    size = 60

    def __init__(self, *, fails: Callable[[Node, Split], bool] = lambda recipe, split: False) -> None:
        self._responses, self._fails = Responses(), fails

    def __call__(self, recipe: Node, split: Split, examples: Examples | None = None) -> Evaluation:
        wanted = {name: places for name, places in (examples or {}).items() if is_measure(name)}
        if not wanted:
            return self._responses(recipe, split, examples)
        if self._fails(recipe, split):
            return Evaluation({}, {"merge": 0.5}, "ValueError: sick")
        assert isinstance(recipe, Checkpoint)
        share = 1 - float(recipe.name.split()[0]) / 2
        return Evaluation(
            {
                name: [float(place % self.size + 0.5 < share * self.size) for place in places]
                for name, places in wanted.items()
            },
            {"merge": 0.5},
        )


class Carried:
    """What a search has led to."""

    def __init__(self, records: list[Record], candidates: list[Candidate], told: dict[str, Any]) -> None:
        self.records, self.candidates, self.told = records, candidates, told


def carry_out(
    directory: Path,
    how: str,
    fitness: str,
    optimizer: str,
    workers: int,
    *,
    evaluate: Any = None,
    crew: type[Crew] = Crew,
    replay: bool = False,
) -> Carried:
    several = fitness == "each"
    fitness = "full" if several else fitness
    space = cast(Any, Numbers() if how == "steady" else Levels())
    asked = evaluate or Forgetting()
    with ExitStack() as stack:
        renewed = functools.partial(maker(optimizer), axes=space.axes, seed=1, start=None)
        strategy = stack.enter_context(closing(renewed()))
        ledger = stack.enter_context(closing(Ledger(directory, {})))
        store = stack.enter_context(closing(ScoreStore(directory / "scores.jsonl", {})))
        executor = cast(Executor, crew(workers, asked) if how == "steady" else local(asked))
        scheduler = Scheduler(executor, store)
        sizes = {**SIZES, FORGET: Forgetting.size}
        splits: Any = {"search": sizes, "validation": {**sizes, FORGET: 300}, "test": {**sizes, FORGET: 300}}
        guard = Guard([LIMIT], MODELS, splits, 60, validated=True)
        objective = Objective(parts=each) if several else Objective()

        def sources() -> list[Any]:
            return [each.scores for each in scheduler.scored(MODELS, "search").values()]

        scoring = Scoring(scheduler, SIZES, objective, sources, guard=guard)
        made = steady_kind(fitness) if how == "steady" else kind(fitness)
        parts = SearchParts(space, strategy, made, scoring, ledger, BUDGET, (), renewed)
        if how == "steady":
            events = stack.enter_context(closing(Events(directory)))
            if replay:
                with closing(Steady(parts, events)) as steady:
                    steady.replay(ask=True)
            else:
                search_steadily(parts, events)
        else:
            search(parts, ask=replay)
        records = list(ledger.records)
        alone = Scheduler(local(asked), store)
        candidates = choose(space, ledger, alone, 3, objective, group=groups_of(made), guard=guard)
        return Carried(records, candidates, cast("dict[str, Any]", told_of_limits(guard, alone, candidates, records)))


@pytest.mark.parametrize(("how", "fitness", "optimizer", "workers"), SEARCHES)
def test_the_winner_keeps_its_limits_and_a_stopped_search_goes_on(
    how: str, fitness: str, optimizer: str, workers: int, tmp_path: Path
) -> None:
    """With one worker it has the same lines as one that was not stopped; with any number its history replays."""
    done = carry_out(tmp_path / "whole", how, fitness, optimizer, workers)
    assert done.told["kept"], done.told["said"]
    (kept,) = done.candidates[0].limits or ()
    assert kept.low >= 0
    assert all(list(each.limits) == [LIMIT.text] for each in done.records if each.fitness is not None)
    assert any(broken(each) for each in done.records)  # the limit binds
    run = tmp_path / "run"
    for last in (9, 15):
        with pytest.raises(Stopped):
            carry_out(run, how, fitness, optimizer, workers, evaluate=Stopping(last, Forgetting()))
    records = carry_out(run, how, fitness, optimizer, workers).records
    assert scored_twice(run) == 0
    if workers == 1:
        whole, again = (json_lines(each / "ledger.jsonl") for each in (tmp_path / "whole", run))
        assert list(map(without_seconds, whole)) == list(map(without_seconds, again))
    before = on_file(run)
    assert carry_out(run, how, fitness, optimizer, workers, replay=True).records == records
    assert on_file(run) == before


@pytest.mark.parametrize(("how", "workers"), [("generations", 1), ("steady", 3)])
def test_margins_that_were_changed_are_found(how: str, workers: int, tmp_path: Path) -> None:
    carry_out(tmp_path, how, "full", "de", workers)
    lines = json_lines(tmp_path / "ledger.jsonl")
    at = next(at for at, line in enumerate(lines) if at > 20 and line["limits"])
    lines[at]["limits"] = {LIMIT.text: 0.5}
    write_lines(tmp_path / "ledger.jsonl", lines)
    with pytest.raises(LedgerError, match=f"line {at + 1} has limits"):
        carry_out(tmp_path, how, "full", "de", workers, replay=True)


@pytest.mark.parametrize(("how", "workers"), [("generations", 1), ("steady", 3)])
def test_workers_are_not_asked_for_limits_of_genomes_that_failed(how: str, workers: int, tmp_path: Path) -> None:
    done = carry_out(tmp_path, how, "full", "de", workers)
    failed = [each.recipe for each in done.records if each.error is not None]
    assert failed
    asked = [line for line in json_lines(tmp_path / "scores.jsonl") if line["label"].startswith("limits of genome")]
    assert not {line["recipe"] for line in asked} & set(failed)


class Watched(Crew):
    """A crew that counts how many jobs are open while recipes are left to be begun."""

    least = 99

    def completed(self) -> tuple[int, Evaluation]:
        if 12 < len(self._begun) < BUDGET - self.workers:  # the sources are scored with the first genome
            type(self).least = min(type(self).least, len(self._open))
        return super().completed()


def test_steady_workers_do_not_wait_for_limits(tmp_path: Path) -> None:
    """While the limits of one genome are scored the others go on."""
    carry_out(tmp_path, "steady", "full", "random", 4, crew=Watched)
    assert Watched.least == 4
