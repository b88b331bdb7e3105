"""What workers did: kept beside the ledger, shown while a run is at work, and drawn in its report."""

import io
import json
import os
import re
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from evohydra.recipe import Checkpoint
from evohydra.report.progress import SearchProgress, Workers
from evohydra.report.worker_figures import workers_figure
from evohydra.scoring.executors.watch import Turn, Watch
from evohydra.scoring.job import Evaluation, Job, MachineError
from evohydra.searching.scheduler import Scheduler
from evohydra.searching.scores import ScoreStore
from evohydra.searching.worker_times import WorkerTimes, sessions, table
from tests.commands import environment, workspace
from tests.kill_repeatedly import finish, lines, start, workers_of
from tests.scripted import local

SCORED = Evaluation({"task": [1.0]}, {"merge": 0.5, "evaluate": 2.0})


def turn(worker: int, began: float, ended: float, outcome: str = "scored") -> Turn:
    return Turn(worker, f"process {worker}", 1, began, ended, outcome, "" if outcome == "scored" else "killed")  # type: ignore[arg-type]


def test_several_sessions_are_kept_and_summed_up(tmp_path: Path) -> None:
    path = tmp_path / "workers.jsonl"
    with closing(WorkerTimes(path)) as times:
        assert times.shares() is None
        times.add(turn(0, 100.0, 103.0), "genome 0", SCORED)
        times.add(turn(1, 100.0, 104.0, "died"), "genome 1", None)
        assert times.deaths == {1: (1, "killed")}
    with path.open("ab") as file:
        file.write(b'{"worker": 0, "torn')
    with closing(WorkerTimes(path)) as times:
        times.add(turn(0, 200.0, 203.0), "genome 1", SCORED)
    assert all(map(json.loads, path.read_text().splitlines()))  # the torn line is gone
    found = sessions(path)
    assert [[each["job"] for each in session] for session in found] == [["genome 0", "genome 1"], ["genome 1"]]
    # of worker 0: 4 s of the first session and 3 s of the second, less 5 s at work
    assert table(found) == [(0, 2, 1.0, 4.0, 2.0, 0), (1, 0, 0.0, 0.0, 4.0, 1)]
    axes = workers_figure(found).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1"]
    ends = [[(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in each.get_paths()]  # type: ignore[union-attr]
            for each in axes.collections[:4]]  # fmt: skip
    bars = [
        [(low, high) for low, high in each if high > low] for each in ends
    ]  # merging of 0 and 1, scoring of 0 and 1
    assert [low for each in bars[:2] for low, _ in each] == [0.0, 4.0]
    assert [high - low for each in bars[2:] for low, high in each] == [2.0, 2.0]


def test_a_dead_worker_is_noted_with_its_job() -> None:
    watch = Watch()
    watch.begins(3, "process 7", 11)
    watch.died(3, "process 7", "signal 9")
    (noted,) = watch.take()
    assert (noted.worker, noted.ticket, noted.outcome, noted.reason) == (3, 11, "died", "signal 9")
    assert not watch.open
    assert watch.take() == []


def test_the_scheduler_keeps_and_the_display_shows_what_workers_do(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    failed: list[bool] = []

    def evaluate(*_: object) -> Evaluation:
        seen.append(list(told.lines()))
        if not failed:
            failed.append(True)
            raise MachineError("no memory")
        return SCORED

    with (
        closing(ScoreStore(tmp_path / "scores.jsonl", {})) as store,
        closing(WorkerTimes(tmp_path / "workers.jsonl")) as times,
    ):
        scheduler = Scheduler(local(evaluate), store, times)
        told = Workers(scheduler, times)
        assert told.shares() == ""
        (pending,) = scheduler.submit([("genome 5", Job(Checkpoint("one", "/one"), "validation"))])
        scheduler.result(pending)
        assert seen[0] == ["worker 0: genome 5 on validation"]
        assert list(told.lines()) == []
        times.deaths[2] = 2, "signal 9"
        assert list(told.lines()) == ["worker 2: waits; died 2 times, the last: signal 9"]
        assert told.shares().startswith("1 worker: ")
        console = Console(file=(written := io.StringIO()), width=200, force_terminal=True)
        with SearchProgress(console, 3, 0, told) as progress:
            progress._bar.refresh()
        assert "died 2 times" in written.getvalue()
    (turns,) = sessions(tmp_path / "workers.jsonl")
    assert [(each["job"], each["outcome"], each.get("reason")) for each in turns] == [
        ("genome 5 on validation", "lost", "no memory"),
        ("genome 5 on validation", "scored", None),
    ]
    assert (turns[1]["merge"], turns[1]["score"]) == (0.5, 2.0)


@pytest.mark.slow
def test_a_run_that_is_killed_and_goes_on_has_one_timeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in environment().items():
        monkeypatch.setenv(key, value)
    overrides = [*workspace(tmp_path), "budget=30", "top=2", "baselines=null", "threads=1"]
    run = tmp_path / "runs" / "run"
    run.parent.mkdir()
    over = [*overrides, "executor=processes", "executor.workers=2"]
    process = start(over, run)
    while process.poll() is None and lines(run / "workers.jsonl") < 6:
        time.sleep(0.01)
    for worker in workers_of(process.pid)[:1]:
        os.kill(worker, signal.SIGKILL)
    until = time.monotonic() + 60
    while b"died" not in (run / "workers.jsonl").read_bytes() and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finish([*over, "report=true"], run)
    first, second = sessions(run / "workers.jsonl")
    assert [each["where"] for each in first if each["outcome"] == "died"]
    assert {each["worker"] for each in second} == {0, 1}
    assert (run / "figures" / "workers.png").is_file()
    assert "What the workers did" in (run / "report.html").read_text()
    told = [line for line in (run.parent / "output.txt").read_text().splitlines() if "2 workers: " in line]
    assert re.search(r"\d % merging, \d+ % scoring, \d+ % waiting", told[-1])
