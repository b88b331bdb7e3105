"""Every executor: the same scores, three kinds of failure, and nothing of one job is left for the next."""

import functools
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from evohydra.checks import check_below
from evohydra.recipe import Checkpoint, Node
from evohydra.scoring.benchmarks import BenchmarkError, Split
from evohydra.scoring.executors import Executor
from evohydra.scoring.executors.local import Local
from evohydra.scoring.executors.processes import Processes
from evohydra.scoring.executors.ray_actors import RayActors
from evohydra.scoring.executors.resources import places
from evohydra.scoring.job import DeviceError, Evaluation, Examples, Job, MachineError
from evohydra.scoring.worker import Worker, _machines
from tests.contracts.discovery import composed, names
from tests.scripted import ScriptedWorker

EXECUTORS: dict[str, Callable[..., Executor]] = {
    "local": Local,
    "processes": functools.partial(Processes, workers=2, threads=1),
    "ray": functools.partial(RayActors, workers=2, cpus_per_worker=1),
}
SEVERAL = ("processes", "ray")  # workers that may die


def act(room: Path, recipe: Node, split: Split, examples: Examples | None = None) -> Evaluation:
    """What the name of a checkpoint says; `room` holds a file for each attempt."""
    assert isinstance(recipe, Checkpoint)
    attempts = len(list(room.glob(f"{recipe.name} *")))
    (room / f"{recipe.name} {attempts} {os.getpid()}").touch()
    what, _, times = recipe.name.partition("-")
    if what == "hangs":
        time.sleep(0.0 if attempts else 1200.0)
        return Evaluation({"task": [float(attempts)]}, {"merge": 0.0})
    if what == "slow":
        time.sleep(float(times) if float(times) > 100 else 1.0)
        return Evaluation({"task": [float(times)]}, {"merge": 0.0})
    if what == "number" and not (room / f"ill {os.getpid()}").exists():
        return Evaluation({"task": [float(times)]}, {"merge": 0.0})
    if times and attempts >= int(times) and not (room / f"ill {os.getpid()}").exists():
        return Evaluation({"task": [1.0]}, {"merge": 0.0})
    if what == "sick" or (room / f"ill {os.getpid()}").exists():
        (room / f"ill {os.getpid()}").touch()  # as after a CUDA error, which no later call in a process survives
        raise DeviceError("CUDA error: an illegal memory access was encountered")
    if what == "memory":
        raise MachineError("OutOfMemoryError: no memory left")
    if what == "settings":
        raise BenchmarkError("wrong settings")
    if what == "disk":
        raise OSError(28, "no space left", "file")
    if what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return Evaluation({}, error="MergeError: not finite")


def made(room: Path) -> Worker:
    return cast(Worker, ScriptedWorker(functools.partial(act, room)))


def refused() -> Worker:
    raise ValueError("no such model")


def killed() -> Worker:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def doubled(worker: Any, number: int) -> int:
    return 2 * number


def pid(worker: Any) -> int:
    return os.getpid()


def running(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(") ")[2][0] != "Z"


def makers(request: pytest.FixtureRequest, room: Path) -> Iterator[Callable[..., Executor]]:
    """What makes executors of the kind that the test is for, with scripted workers; they are closed at the end."""
    opened: list[Executor] = []
    fixed = {"address": request.getfixturevalue("ray_address")} if request.param == "ray" else {}

    def executor(**settings: Any) -> Executor:
        opened.append(EXECUTORS[request.param](**{"make": functools.partial(made, room), **fixed, **settings}))
        return opened[-1]

    yield executor
    for each in opened:
        each.close()


@pytest.fixture(params=EXECUTORS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Executor]]:
    yield from makers(request, tmp_path)


@pytest.fixture(params=SEVERAL)
def several(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Executor]]:
    yield from makers(request, tmp_path)


def scored(executor: Executor, *recipes: str) -> dict[str, Evaluation]:
    tickets = executor.submit([Job(Checkpoint(name, "-"), "search") for name in recipes])
    found = dict(executor.completed() for _ in recipes)
    return {name: found[ticket] for name, ticket in zip(recipes, tickets, strict=True)}


def test_the_suite_has_all_executors() -> None:
    assert set(EXECUTORS) == set(names("executor"))


def test_each_job_has_its_own_scores_whatever_the_order(make: Callable[..., Executor]) -> None:
    executor = make()
    wanted = [f"number-{i}" for i in range(7)]
    assert {name: each.scores["task"][0] for name, each in scored(executor, *wanted).items()} == {
        f"number-{i}": float(i) for i in range(7)
    }
    assert executor.ask(doubled, 4) == 8
    assert scored(executor, "number-9")["number-9"].scores == {"task": [9.0]}


def test_a_genomes_failure_is_a_result(make: Callable[..., Executor]) -> None:
    found = scored(make(), "broken", "number-1")
    assert found["broken"] == Evaluation({}, error="MergeError: not finite")
    assert not found["broken"].given_up


def test_what_the_machine_failed_is_tried_again(make: Callable[..., Executor], tmp_path: Path) -> None:
    found = scored(make(retries=2), "memory-2", "number-1")
    assert found["memory-2"].scores == {"task": [1.0]}
    assert len(list(tmp_path.glob("memory-2 *"))) == 3


def test_what_fails_while_others_pass_is_given_up(make: Callable[..., Executor], tmp_path: Path) -> None:
    """A recipe that has passed is scored once more before one is given up."""
    found = scored(make(retries=1), "number-1", "memory")
    assert found["memory"].given_up
    assert "given up after 2 attempts, while others were scored" in (found["memory"].error or "")
    assert len(list(tmp_path.glob("memory *"))) == 2
    assert len(list(tmp_path.glob("number-1 *"))) == 2


def test_a_machine_that_fails_everything_stops_the_run(make: Callable[..., Executor]) -> None:
    executor = make(retries=1)
    executor.submit([Job(Checkpoint("memory", "-"), "search")])
    with pytest.raises(MachineError, match=r"no recipe could be scored, 2 attempts failed .*no memory left"):
        executor.completed()


@pytest.mark.parametrize(("name", "kind", "message"), [("settings", BenchmarkError, "wrong settings"),
                                                       ("disk", OSError, "no space left")])  # fmt: skip
def test_what_is_nobodys_failure_is_raised(
    make: Callable[..., Executor], name: str, kind: type[Exception], message: str
) -> None:
    executor = make()
    executor.submit([Job(Checkpoint(name, "-"), "search")])
    with pytest.raises(kind, match=message):
        executor.completed()


@pytest.mark.parametrize("settings", [{"retries": -1}, {"retries": 1.5}, {"retries": True}])
@pytest.mark.parametrize("name", EXECUTORS)
def test_retries_that_make_no_sense(name: str, settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"executor\.retries: expected a whole number of at least 0, got"):
        check_below({**composed(f"executor={name}")["executor"], **settings}, "executor")


def test_a_worker_that_cannot_be_made_says_why(several: Callable[..., Executor]) -> None:
    executor = several(make=refused)
    executor.submit([Job(Checkpoint("number-1", "-"), "search")])
    with pytest.raises(ValueError, match="no such model"):
        executor.completed()


def test_killed_workers_are_replaced_and_their_jobs_done(
    several: Callable[..., Executor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The third attempt of each of these is the first that does not kill its process."""
    executor = several(retries=3)
    found = scored(executor, "number-1", "dies-2", "number-2", "dies-1", "number-3")
    assert all(each.error is None for each in found.values())
    assert [found[f"number-{i}"].scores["task"] for i in (1, 2, 3)] == [[1.0], [2.0], [3.0]]
    assert len(list(tmp_path.glob("dies-2 *"))) == 3
    dead = {file.name.rpartition(" ")[2] for file in tmp_path.glob("dies-2 [01] *")}
    assert all(re.search(rf"worker \d \(process {each}\b.*\) died: .*tried again", caplog.text) for each in dead)


def test_a_worker_that_hangs_is_ended_and_its_job_tried_again(
    several: Callable[..., Executor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without another worker that is free; nobody kills it by hand."""
    found = scored(several(workers=1, retries=1, limit=2.0), "hangs", "number-1")
    assert (found["hangs"].scores, found["number-1"].scores) == ({"task": [1.0]}, {"task": [1.0]})
    (dead,) = (file.name.rpartition(" ")[2] for file in tmp_path.glob("hangs 0 *"))
    assert re.search(rf"worker 0 \(process {dead}\b.*more than executor\.limit=2: it is ended", caplog.text)
    assert not running(int(dead))


def test_a_slow_job_is_given_to_a_second_worker(
    several: Callable[..., Executor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first answer counts, and what the slow worker says later is nobody's."""
    executor = several(straggler=2.0)
    scored(executor, *(f"slow-{i}" for i in range(4)))
    found = scored(executor, "hangs", "slow-5")
    assert found["hangs"].scores == {"task": [1.0]}
    assert len(list(tmp_path.glob("hangs *"))) == 2
    assert scored(executor, "slow-6", "slow-7")["slow-7"].scores == {"task": [7.0]}
    assert executor.ask(doubled, 2) == 4
    assert "is slow; worker" in caplog.text


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("key", ["limit", "straggler"])
@pytest.mark.parametrize("value", [0, -3.0, True, "long"])
def test_limits_that_make_no_sense(name: str, key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"executor\.{key}: expected .*got {value!r}"):
        check_below({**composed(f"executor={name}")["executor"], key: value}, "executor")


def test_workers_that_were_killed_while_idle_are_replaced(several: Callable[..., Executor], tmp_path: Path) -> None:
    """No recipe pays for that with an attempt."""
    executor = several(retries=0)
    scored(executor, "number-1", "number-2")
    victim = executor.ask(pid)
    os.kill(victim, signal.SIGKILL)
    while running(victim):
        time.sleep(0.01)
    found = scored(executor, *(f"number-{i}" for i in range(6)))
    assert [found[f"number-{i}"].scores for i in range(6)] == [{"task": [float(i)]} for i in range(6)]
    assert executor.ask(pid) != victim


def test_workers_that_are_killed_before_they_are_ready_end_the_run() -> None:
    with closing(Processes(make=killed, workers=1, threads=1, retries=1)) as executor:
        executor.submit([Job(Checkpoint("number-1", "-"), "search")])
        with pytest.raises(MachineError, match=r"signal 9 .*memory.*, 2 times in a row. All scores so far are kept"):
            executor.completed()


def test_a_recipe_that_kills_every_worker_is_given_up(several: Callable[..., Executor]) -> None:
    found = scored(several(retries=1), "number-1", "dies", "number-2")
    assert found["dies"].given_up
    assert re.search(r"worker \d \(process \d+.*\) died: ", found["dies"].error or "")
    assert found["number-2"].scores == {"task": [2.0]}


def test_a_sick_worker_takes_no_other_recipe_down(several: Callable[..., Executor], tmp_path: Path) -> None:
    """It would fail whatever it gets, and faster than a healthy one scores."""
    found = scored(several(retries=2), "number-1", "sick-1", *(f"number-{i}" for i in range(2, 9)))
    assert all(each.error is None for each in found.values())
    assert len(list(tmp_path.glob("sick-1 *"))) == 2
    assert len(list(tmp_path.glob("ill *"))) == 1


def test_a_recipe_that_makes_every_worker_sick_is_given_up(several: Callable[..., Executor]) -> None:
    found = scored(several(retries=1), "number-1", "sick", "number-2")
    assert found["sick"].given_up
    assert "illegal memory access" in (found["sick"].error or "")
    assert found["number-2"].scores == {"task": [2.0]}


def test_one_process_that_is_sick_stops_the_run(tmp_path: Path) -> None:
    with closing(Local(make=functools.partial(made, tmp_path))) as executor:
        executor.submit([Job(Checkpoint(name, "-"), "search") for name in ("number-1", "sick", "number-2")])
        executor.completed()
        with pytest.raises(MachineError, match=r"illegal memory access .*give the same command again"):
            executor.completed()
    assert not list(tmp_path.glob("number-2 *"))


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (RuntimeError("CUDA error: device-side assert triggered"), DeviceError),
        (RuntimeError("cusolver error: CUSOLVER_STATUS_EXECUTION_FAILED"), DeviceError),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), MachineError),
        (torch.OutOfMemoryError("no room"), MachineError),
        (MemoryError(), MachineError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (FloatingPointError("3 logits are not numbers"), None),
    ],
)
def test_whose_failure_it_is(reason: Exception, kind: type[MachineError] | None) -> None:
    assert _machines(reason) is kind


def test_no_machine_is_asked_for_a_billion_workers() -> None:
    with pytest.raises(
        ValueError, match=r"executor\.workers: expected auto or at most \d+ on this machine, .* got 1000"
    ):
        places(1_000_000_000, "auto", 0)


def test_places_share_the_machine() -> None:
    cores = len(os.sched_getaffinity(0))
    assert places("auto", "auto", 10**6).workers == cores or places("auto", "auto", 10**6).gpus
    assert places(1, "auto", 0).threads == cores
    assert places(cores, "auto", 0).threads == 1
    assert places("auto", 1, 10**15).workers == 1 or places("auto", 1, 10**15).gpus
