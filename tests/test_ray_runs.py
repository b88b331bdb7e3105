"""Runs over Ray whose command or whose Ray is killed: they go on, and end as if nothing had happened."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.commands import environment, workspace
from tests.kill_repeatedly import children, command_line, content, differences, finish, lines, scored_twice, start
from tests.ray_nodes import nodes_of_ray
from tests.waiting import HANGS, wait_for

RAY = ["executor=ray", "executor.workers=2", "executor.cpus_per_worker=1", "threads=1"]


@pytest.fixture(autouse=True)
def user_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in environment().items():
        monkeypatch.setenv(key, value)


@pytest.mark.slow
def test_commands_that_are_killed_change_nothing(tmp_path: Path) -> None:
    overrides = [*workspace(tmp_path), "budget=14", "top=2", "baselines=null", *RAY]
    kills, differing = differences(3, 5, overrides, tmp_path / "runs")
    assert differing == []
    assert any(each.alive for each in kills)
    assert sum(each.lost for each in kills) == 0


@pytest.mark.slow
def test_nothing_of_a_local_ray_outlives_a_killed_command(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start([*workspace(tmp_path), "budget=300", "baselines=null", *RAY], run)
    while process.poll() is None and lines(run / "ledger.jsonl") < 4:
        time.sleep(0.05)
    below = children(process.pid)
    below += [each for child in below for each in children(child)]
    assert sum(command_line(each).startswith(b"ray::") for each in below) >= 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(map(command_line, below)))


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "what"), [("gcs_server", "its head"), ("raylet", "its node on this machine")])
def test_a_run_whose_ray_was_lost_goes_on_over_another(lost: str, what: str, tmp_path: Path) -> None:
    """The head of the cluster, or what Ray runs on the command's own node."""
    overrides = [*workspace(tmp_path), "budget=14", "top=2", "baselines=null", "threads=1"]
    alone, run = tmp_path / "alone" / "run", tmp_path / "lost" / "run"
    for directory in (alone, run):
        directory.parent.mkdir()
    finish(overrides, alone)
    with nodes_of_ray(num_cpus=2) as cluster:
        process = start([*overrides, "executor=ray", f"executor.address={cluster.address}"], run)
        while process.poll() is None and lines(run / "scores.jsonl") < 3:
            time.sleep(0.01)
        (head,) = cluster.head_node.all_processes[lost]
        os.kill(head.process.pid, signal.SIGKILL)
        assert process.wait(timeout=HANGS) == 1
    said = (run.parent / "output.txt").read_text()
    assert f"Ray is lost: {what}" in said
    assert "give the same command again when Ray is back" in said
    assert "Traceback" not in said
    with nodes_of_ray(num_cpus=2) as cluster:
        finish([*overrides, "executor=ray", f"executor.address={cluster.address}"], run)
    expected, found = content(alone), content(run)
    assert [key for key in expected if expected[key] != found.get(key)] == []
    assert scored_twice(run) == 0
