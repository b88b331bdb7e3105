"""Asynchronous searches with every executor: busy workers, nothing lost or scored twice, and a history that replays."""

import functools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, cast

import pytest

from evohydra.recipe import Node, digest
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.executors import Executor
from evohydra.scoring.job import Evaluation, Examples
from evohydra.scoring.worker import Worker
from evohydra.searching.events import EVENTS, Asked, Events, Told
from evohydra.searching.ledger import Ledger, Record
from evohydra.searching.rounds import Scoring
from evohydra.searching.scheduler import Scheduler
from evohydra.searching.scores import ScoreStore
from evohydra.searching.search_parts import SearchParts
from evohydra.searching.steady import Steady, search_steadily
from tests.contracts.test_executors import EXECUTORS, makers
from tests.contracts.test_fitness import SIZES, Responses
from tests.kill_repeatedly import on_file, scored_twice
from tests.scripted import ScriptedWorker
from tests.test_steady import Numbers, Stopped, kind, maker

BUDGET = 16
LETHAL = 5  # one recipe in so many ends the first worker that gets it


def respond(room: Path, recipe: Node, split: Split, examples: Examples | None = None) -> Evaluation:
    """The same scores in every process; `room` has a file for each recipe that a worker has begun."""
    name = digest(recipe)
    first = not list(room.glob(f"{name} *"))
    (room / f"{name} {os.getpid()} {time.monotonic_ns()}").touch()
    if (room / "lethal").exists() and first and int(name, 16) % LETHAL == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(int(name, 16) % 7 / 100)  # so that workers are not done in the order of the asks
    return Responses()(recipe, split, examples)


def made(room: Path) -> Worker:
    return cast(Worker, ScriptedWorker(functools.partial(respond, room)))


@pytest.fixture(params=EXECUTORS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Executor]]:
    yield from makers(request, tmp_path)


def carried_out(
    directory: Path,
    executor: Executor,
    *,
    fitness: str = "full",
    optimizer: str = "de",
    last: int | None = None,
    replay: bool = False,
) -> list[Record]:
    """A search in a directory; the process ends after `last` records, as far as its files know."""

    def observe(record: Record) -> None:
        if record.index + 1 == last:
            raise Stopped

    space = Numbers()
    with ExitStack() as stack:
        renewed = functools.partial(maker(optimizer), axes=space.axes, seed=1, start=None)
        strategy = stack.enter_context(closing(renewed()))
        ledger = stack.enter_context(closing(Ledger(directory, {})))
        events = stack.enter_context(closing(Events(directory)))
        store = stack.enter_context(closing(ScoreStore(directory / "scores.jsonl", {})))
        sources = [{name: [float(at % 3 == each) for at in range(size)] for name, size in SIZES.items()}
                   for each in range(2)]  # fmt: skip
        scoring = Scoring(Scheduler(executor, store), SIZES, sources=lambda: sources)
        parts = SearchParts(space, strategy, kind(fitness), scoring, ledger, BUDGET, (observe,), renewed)  # type: ignore[arg-type]
        if replay:
            with closing(Steady(parts, events)) as steady:
                steady.replay(ask=True)
        else:
            search_steadily(parts, events)
        return list(ledger.records)


def follows(directory: Path, executor: Executor, **options: Any) -> list[Record]:
    """The records of a run, which its history leads to; nothing is scored or written for that."""
    before = on_file(directory)
    records = carried_out(directory, executor, replay=True, **options)
    assert on_file(directory) == before
    assert scored_twice(directory) == 0
    return records


@pytest.mark.parametrize(("fitness", "optimizer"), [("full", "bo"), ("racing fitness.fresh=false", "cmaes")])
def test_workers_are_kept_busy_and_the_history_replays(
    make: Callable[..., Executor], tmp_path: Path, fitness: str, optimizer: str
) -> None:
    executor, run = make(make=functools.partial(made, tmp_path)), tmp_path / "run"
    carried_out(run, executor, fitness=fitness, optimizer=optimizer)
    with closing(Events(run)) as events:
        told = asked = most = 0
        for event in events.recorded:
            told, asked = told + isinstance(event, Told), asked + isinstance(event, Asked)
            most = max(most, asked - told)
    assert most >= executor.workers
    assert asked == told == BUDGET
    records = follows(run, executor, fitness=fitness, optimizer=optimizer)
    assert [record.index for record in records] == list(range(BUDGET))


def test_one_worker_has_the_bits_of_any_other_one(
    make: Callable[..., Executor], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With one worker there is one order."""
    one = {} if request.node.callspec.params["make"] == "local" else {"workers": 1}
    carried_out(tmp_path / "this", make(make=functools.partial(made, tmp_path), **one))
    with closing(EXECUTORS["local"](make=functools.partial(made, tmp_path))) as local:
        carried_out(tmp_path / "local", local)
    for name in ("ledger.jsonl", EVENTS, "scores.jsonl"):
        assert (tmp_path / "this" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


def test_workers_that_are_killed_lose_nothing(
    make: Callable[..., Executor], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Recipes that end the first worker that gets them are scored by another one, and the history replays."""
    if request.node.callspec.params["make"] == "local":
        pytest.skip("its worker is this process")
    (tmp_path / "lethal").touch()
    executor = make(make=functools.partial(made, tmp_path), retries=3)
    carried_out(tmp_path / "run", executor)
    begun = [file.name.split()[0] for file in tmp_path.glob("* * *")]
    assert len(begun) > len(set(begun))  # some were killed
    records = follows(tmp_path / "run", executor)
    assert not any(record.given_up for record in records)
    assert len(records) == BUDGET


def test_a_search_that_is_stopped_goes_on(make: Callable[..., Executor], tmp_path: Path) -> None:
    """What was told stays as it is, what was in flight is scored once, and the whole history replays."""
    run = tmp_path / "run"
    executor = make(make=functools.partial(made, tmp_path))
    with closing(executor), pytest.raises(Stopped):
        carried_out(run, executor, last=9)
    known = on_file(run)
    executor = make(make=functools.partial(made, tmp_path))
    carried_out(run, executor)
    assert not known - on_file(run)
    assert len(follows(run, executor)) == BUDGET
