"""Workers begin with a generation's first genomes while the others are asked for; no bit of a run changes by that."""

import functools
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from evohydra.scoring.executors import Executor
from evohydra.scoring.job import Evaluation, Job
from evohydra.searching.driver import search
from evohydra.searching.ledger import Ledger
from evohydra.searching.rounds import Scoring
from evohydra.searching.scheduler import Scheduler
from evohydra.searching.scores import ScoreStore
from evohydra.searching.search_parts import SearchParts
from tests.commands import json_lines
from tests.contracts.test_fitness import SIZES, Levels, Responses
from tests.kill_repeatedly import scored_twice
from tests.test_steady import FITNESS, Numbers, kind, maker

BUDGET = 36


class Hands:
    """An executor whose workers are done in random order. told: what happened, in order."""

    def __init__(self, workers: int) -> None:
        self.workers, self._evaluate, self._order = workers, Responses(), random.Random(3)
        self._open: list[tuple[int, Job]] = []
        self._tickets = 0
        self.told: list[str] = []

    def submit(self, jobs: Sequence[Job]) -> list[int]:
        self.told += ["submitted"] * len(jobs)
        first = self._tickets
        self._tickets += len(jobs)
        self._open += enumerate(jobs, start=first)
        return list(range(first, self._tickets))

    def completed(self) -> tuple[int, Evaluation]:
        ticket, job = self._open.pop(self._order.randrange(len(self._open)))
        found = self._evaluate(job.recipe, job.split, job.examples)
        if job.part is None or found.error is not None:
            return ticket, found
        index, count = job.part
        positions = {name: list(range(len(scores)))[index::count] for name, scores in found.scores.items()}
        scores = {name: [found.scores[name][at] for at in places] for name, places in positions.items()}
        return ticket, Evaluation(scores, {"merge": 0.5}, tokens=3 if index == 0 else 0, positions=positions)

    def ask(self, task: Any, *given: object) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is left to be ended."""


def watched(strategy: Any, hands: Hands) -> Any:
    """A strategy that says when it has given the last genome of a generation."""
    in_turn = strategy.ask_in_turn

    def given() -> Iterator[np.ndarray]:
        yield from in_turn()
        hands.told.append("asked")

    strategy.ask_in_turn = given
    return strategy


def carried_out(directory: Path, workers: int, fitness: str, space: Levels, budget: int = BUDGET) -> Hands:
    hands = Hands(workers)
    with ExitStack() as stack:
        renewed = functools.partial(maker("bo"), axes=space.axes, seed=1, start=None)
        strategy = watched(stack.enter_context(closing(renewed())), hands)
        ledger = stack.enter_context(closing(Ledger(directory, {})))
        store = stack.enter_context(closing(ScoreStore(directory / "scores.jsonl", {})))
        sources = [
            {name: [float(at % 3 == each) for at in range(size)] for name, size in SIZES.items()} for each in range(2)
        ]
        scoring = Scoring(Scheduler(cast(Executor, hands), store), SIZES, sources=lambda: sources)
        search(SearchParts(space, strategy, kind(fitness), scoring, ledger, budget, (), renewed))
    return hands


def genomes(directory: Path) -> list[dict[str, Any]]:
    lines = json_lines(directory / "ledger.jsonl")
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def scores(directory: Path) -> list[str]:
    lines = json_lines(directory / "scores.jsonl")
    return sorted(repr({key: value for key, value in line.items() if key != "seconds"}) for line in lines)


@pytest.mark.parametrize("space", [Numbers(), Levels()], ids=["numbers", "recipes that come again"])
@pytest.mark.parametrize("fitness", FITNESS)
def test_the_same_run_with_any_number_of_workers(fitness: str, space: Levels, tmp_path: Path) -> None:
    carried_out(tmp_path / "1", 1, fitness, space)
    for workers in (2, 5):
        run = tmp_path / str(workers)
        carried_out(run, workers, fitness, space, budget=21)  # which cuts a generation short
        carried_out(run, workers, fitness, space)
        assert genomes(run) == genomes(tmp_path / "1")
        assert scores(run) == scores(tmp_path / "1")
        assert scored_twice(run) == 0


@pytest.mark.parametrize("fitness", ["full", "likelihood"])
def test_each_worker_has_a_genome_before_all_are_asked_for(fitness: str, tmp_path: Path) -> None:
    told = carried_out(tmp_path / "run", 2, fitness, Numbers()).told
    ends = [at for at, what in enumerate(told) if what == "asked"]
    assert len(ends) == 8
    assert all(told[at - 2 : at] == ["submitted"] * 2 for at in ends)
    assert all(told[at + 1] == "submitted" for at in ends)
