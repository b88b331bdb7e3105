"""Runs whose genomes are scored in other processes: the same results, also when workers are killed."""

import gc
import json
import os
import signal
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
import torch

from evohydra.merging.checkpoints import CheckpointReader
from evohydra.recipe import Checkpoint
from evohydra.scoring.benchmarks import SPLITS
from evohydra.scoring.job import Evaluation, Job
from evohydra.scoring.worker import probe
from evohydra.searching.scores import ScoreStore
from tests.commands import built, carried_out, environment, json_lines, warm_start, workspace
from tests.kill_repeatedly import children, command_line, content, lines, start, workers_killed

WORKERS = ["executor=processes", "executor.workers=2", "threads=1"]
RAY = ["executor=ray", "executor.workers=2", "executor.cpus_per_worker=1", "threads=1"]


@pytest.fixture(autouse=True)
def user_environment(monkeypatch: pytest.MonkeyPatch):
    for key, value in environment().items():
        monkeypatch.setenv(key, value)


@pytest.mark.parametrize(
    "searched",
    [[], pytest.param(["merge=task_arithmetic+dfs", "optimizer=catcma", "fitness=racing"], marks=pytest.mark.slow)],
    ids=" ".join,
)
@pytest.mark.parametrize(
    "workers",
    [WORKERS, RAY, pytest.param([*RAY, "executor.workers=1"], marks=pytest.mark.slow)],
    ids=["processes", "ray", "ray with 1"],
)
def test_several_processes_give_what_one_gives(tmp_path: Path, workers: list[str], searched: list[str]):
    """Ledger, scores, summary, recipe and every byte of the winner."""
    arguments = [*workspace(tmp_path), "budget=14", "top=3", "batch_size=4", *searched]
    alone, several = tmp_path / "alone" / "run", tmp_path / "several" / "run"
    carried_out([*arguments, "threads=1"], alone)
    carried_out([*arguments, *workers], several)
    expected, found = content(alone), content(several)
    assert [key for key in expected if expected[key] != found.get(key)] == []


@pytest.mark.parametrize("workers", [WORKERS, pytest.param(RAY, marks=pytest.mark.slow)], ids=["processes", "ray"])
def test_killed_workers_change_nothing(tmp_path: Path, workers: list[str]):
    overrides = [*workspace(tmp_path), "budget=14", "top=2", "baselines=null", *workers]
    hit, differing = workers_killed(2, 1, overrides, tmp_path / "runs", warm_start)
    assert differing == []
    assert hit == 2
    log = (tmp_path / "runs" / "killed" / "output.txt").read_text()
    assert ("died: signal 9" if workers is WORKERS else "died: ") in log  # the run says so


def test_equal_models_are_scored_once(tmp_path: Path):
    """A source with the weights of the base, which is scored under both names."""
    arguments = workspace(tmp_path)
    base = next(each for each in arguments if each.startswith("model.sources.two.base=")).partition("=")[2]
    run = tmp_path / "run"
    summary = carried_out([*arguments, f"model.sources.two.path={base}", "budget=6", "baselines=null"], run)
    assert summary["test"]["base"] == summary["test"]["sources"]["two"]
    lines = [line for line in json_lines(run / "scores.jsonl") if line["split"] == "test"]
    assert {line["label"] for line in lines} == {"one", "two", "base", "uniform", "winner"}
    assert len({line["recipe"] for line in lines}) == len([line for line in lines if not line["copied"]]) == 4


def test_jobs_of_a_sweep_score_sources_and_baselines_once(tmp_path: Path):
    """In the second job of a sweep they are copied; other sources or other ways to ask are no equal things."""
    shared, source = tmp_path / "scores.jsonl", Checkpoint("one", "-", fingerprint="ab")
    so, otherwise = dict.fromkeys(SPLITS, "asked so"), {**dict.fromkeys(SPLITS, "asked so"), "test": "asked otherwise"}
    first = ScoreStore(tmp_path / "1.jsonl", so, shared)
    first.keep("one", Job(source, "test"), Evaluation({"task": [1.0]}, {"merge": 0.0}))
    first.keep("genome 3", Job(Checkpoint("two", "-", fingerprint="cd"), "search"), Evaluation({"task": [0.0]}, {}))
    first.close()
    assert [json.loads(line)["label"] for line in shared.read_text().splitlines()] == ["one"]
    second = ScoreStore(tmp_path / "2.jsonl", so, shared)
    renamed = Job(Checkpoint("uno", "elsewhere", fingerprint="ab"), "test")
    assert second.find("uno", renamed) == Evaluation({"task": [1.0]}, {"merge": 0.0})
    assert second.find("uno", Job(renamed.recipe, "validation")) is None
    second.close()
    assert [(line["label"], line["copied"]) for line in json_lines(tmp_path / "2.jsonl")] == [("uno", True)]
    other = ScoreStore(tmp_path / "3.jsonl", otherwise, shared)
    assert other.find("one", Job(source, "test")) is None
    other.close()


def matrices() -> dict[int, torch.Tensor]:
    """The tensors of this process that could be a model's, by identity; views of mapped files hold no memory."""
    gc.collect()
    everything = gc.get_objects()
    mapped = {id(view) for each in everything if isinstance(each, CheckpointReader) for view in each._views.values()}
    found = {id(each): each for each in everything if isinstance(each, torch.Tensor) and each.dim() == 2}
    return {key: each for key, each in found.items() if key not in mapped}


def test_the_driver_holds_no_tensor_of_a_model(tmp_path: Path):
    """With workers in other processes; with one in this process they are there once it is asked."""
    arguments = [*workspace(tmp_path), "budget=6"]
    before = set(matrices())
    run = built([*arguments, *WORKERS], tmp_path / "run")
    assert run.models.sources
    assert set(matrices()) <= before
    alone = built(arguments, tmp_path / "alone")
    with closing(alone.make_executor()) as executor:
        executor.ask(probe, alone.plan.space.default())
        assert len(set(matrices()) - before) > 10


@pytest.mark.parametrize(
    ("workers", "steps"),
    [(WORKERS, 0), (WORKERS, 4), pytest.param(RAY, 0, marks=pytest.mark.slow), (RAY, 4)],
    ids=["while workers start", "in the search", "while Ray starts", "in a search over Ray"],
)
def test_an_interrupted_run_ends_in_one_sentence(tmp_path: Path, workers: list[str], steps: int):
    """Ctrl-C goes to the driver and to its workers; no process is left, and none shows a traceback."""
    run = tmp_path / "run"
    overrides = [*workspace(tmp_path), "budget=300", "baselines=null", *workers]
    process = warm_start(overrides, run)
    while process.poll() is None and (lines(run / "ledger.jsonl") < steps or not (run / "settings.json").is_file()):
        time.sleep(0.01)
    started = below(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    output = (tmp_path / "output.txt").read_text()
    assert "interrupted. What was scored is in" in output
    assert "Traceback" not in output
    assert "leaked" not in output
    until = time.monotonic() + 15
    while (left := [*alive(process.pid), *filter(None, map(command_line, started))]) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == []


@pytest.mark.parametrize("workers", [WORKERS, pytest.param(RAY, marks=pytest.mark.slow)], ids=["processes", "Ray"])
def test_a_run_that_is_sent_sigterm_ends_in_one_sentence(tmp_path: Path, workers: list[str]):
    """As Slurm does when the time of a job is over: it goes to the driver alone, and no process is left."""
    run = tmp_path / "run"
    process = start([*workspace(tmp_path), "budget=300", "baselines=null", *workers], run)
    while process.poll() is None and lines(run / "ledger.jsonl") < 1:
        time.sleep(0.01)
    started = below(process.pid)
    process.terminate()
    assert process.wait(timeout=60) == 143
    output = (tmp_path / "output.txt").read_text()
    assert "ended by SIGTERM. What was scored is in" in output
    assert "Traceback" not in output
    until = time.monotonic() + 15
    while (left := [*alive(process.pid), *filter(None, map(command_line, started))]) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == []


def alive(group: int) -> list[str]:
    """The command lines of a process group, but of processes that have ended."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, its_group = (each / "stat").read_text().rpartition(") ")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append((each / "cmdline").read_text().replace("\0", " "))
    return found


def below(process: int) -> list[int]:
    """The processes that a process has started, and those that they have started; Ray's lead groups of their own."""
    started = children(process)
    return [*started, *(each for child in started for each in below(child))]
