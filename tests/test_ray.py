"""executor=ray: what only Ray has, as addresses, nodes that come and go, and a head that is lost."""

import functools
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from evohydra.recipe import Checkpoint
from evohydra.scoring.executors import ray_actors, ray_cluster
from evohydra.scoring.executors.ray_actors import RayActors
from evohydra.scoring.executors.ray_cluster import Share, room
from evohydra.scoring.job import Job, MachineError
from evohydra.searching.secret_overrides import check_overrides
from tests.commands import environment
from tests.contracts.test_executors import doubled, made, scored
from tests.ray_nodes import added, nodes_of_ray
from tests.waiting import wait_for


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port at which something listens that never says anything."""
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def initialized() -> bool:
    """Whether this process is connected to a Ray, or tries to be."""
    import ray

    return bool(ray.is_initialized())


def actors(room: Path, **settings: Any) -> RayActors:
    return RayActors(make=functools.partial(made, room), **{"cpus_per_worker": 1, **settings})


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"resources": {"CPU": 2}}, "expected none called CPU, which executor.cpus_per_worker gives"),
     ({"environment": {"": "x"}}, "a name without '='"),
     ({"environment": {"A=B": "x"}}, "a name without '='"),
     ({"environment": {"A": "a\0b"}}, "a text without a zero byte")],
)  # fmt: skip
def test_names_that_ray_would_refuse_late(tmp_path: Path, settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        actors(tmp_path, address="127.0.0.1:1", **settings)


@pytest.mark.parametrize(
    ("address", "why"),
    [("nowhere", "expected the address of a running Ray, host:port.*got 'nowhere'"),
     ("ray://127.0.0.1:10001", "expected the address of a running Ray"),
     ("127.0.0.1:1", "no Ray answers: .*refused"),
     ("127.0.0.1:99999", "no Ray answers")],
)  # fmt: skip
def test_an_address_without_a_ray_is_a_sentence(tmp_path: Path, address: str, why: str) -> None:
    """The port is asked once: Ray's own library, which would wait for minutes, is not reached."""
    with closing(actors(tmp_path, address=address)) as executor, pytest.raises(ValueError, match=why):
        executor.submit([Job(Checkpoint("number-1", "-"), "search")])
    assert not initialized()


def test_a_port_at_which_something_else_listens(
    tmp_path: Path, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own library would wait for almost three minutes, and end the process."""
    monkeypatch.setattr("evohydra.scoring.executors.ray_cluster.PATIENCE", 0.5)
    executor = actors(tmp_path, address=f"127.0.0.1:{silent_port}")
    with closing(executor), pytest.raises(ValueError, match="no Ray answers: timed out"):
        executor.ask(doubled, 1)


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_a_ray_that_may_ask_for_a_token(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own error does not say it."""

    def refused(**_: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")

    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setattr(ray_cluster, "_initialise", refused)
    with pytest.raises(ValueError, match="Failed to connect to Ray cluster") as caught:
        ray_cluster.connect("auto")
    assert ("set RAY_AUTH_MODE=token for this command" in str(caught.value)) == (mode != "token")


def test_a_cluster_of_another_version_is_a_sentence(
    tmp_path: Path, ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray, "__version__", "2.1.0")
    with closing(actors(tmp_path, address=ray_address)) as executor:
        with pytest.raises(ValueError, match=r"executor\.address: .*[Vv]ersion mismatch.*Ray: .*2\.1\.0") as found:
            executor.ask(doubled, 1)
        assert "\n" not in str(found.value)
    monkeypatch.undo()
    with closing(actors(tmp_path, address=ray_address, workers=1)) as executor:  # nothing is left of the first try
        assert executor.ask(doubled, 1) == 2


def test_workers_run_in_another_python(tmp_path: Path, ray_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is this one, begun by a script that leaves a mark."""
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nMARK=seen exec {sys.executable} "$@"\n')
    other.chmod(0o755)
    for python, expected in ((str(other), "seen"), (None, None)):
        with closing(actors(tmp_path, address=ray_address, workers=1, python=python)) as executor:
            assert executor.ask(variable, "MARK") == expected


def test_without_ray_installed_the_line_to_install_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"executor=ray: .* run `pip install -c constraints.txt -e '\.\[ray\]'`"):
        actors(tmp_path)


def test_workers_that_nodes_hold() -> None:
    nodes: list[dict[str, Any]] = [
        {"NodeID": "gone", "Alive": False, "Resources": {"CPU": 64.0}},
        {"NodeID": "cpus", "Alive": True, "Resources": {"CPU": 7.0, "memory": 1e12}},
        {"NodeID": "small", "Alive": True, "Resources": {"CPU": 64.0, "memory": 7e9}},
        {"NodeID": "gpus", "Alive": True, "Resources": {"CPU": 64.0, "GPU": 8.0, "memory": 1e9}},
    ]
    assert room(nodes, Share(2), 10**9) == {"cpus": 3, "small": 3, "gpus": 1}
    assert room(nodes, Share(1, 1.0), 10**9) == {"cpus": 0, "small": 0, "gpus": 8}
    assert room(nodes, Share(1, 0.1), 10**9)["gpus"] == 64


@pytest.mark.slow
def test_nodes_come_and_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A worker is added for a node that joins; jobs of a node that goes are done elsewhere, with all their scores."""
    with (
        nodes_of_ray(num_cpus=1) as cluster,
        closing(actors(tmp_path, address=cluster.address, retries=5)) as executor,
    ):
        scored(executor, "number-1")
        assert executor.workers == 1
        for round_ in range(2):
            node = added(cluster)
            wait_for(lambda: executor.workers == 2)
            before = processes(tmp_path)
            wanted = [f"slow-{10 * round_ + i}" for i in range(10)]
            gone = threading.Thread(target=remove_at_work, args=(cluster, node, tmp_path, before))
            gone.start()
            found = scored(executor, *wanted)
            gone.join()
            assert {name: each.scores["task"] for name, each in found.items()} == {
                name: [float(name.partition("-")[2])] for name in wanted
            }
            wait_for(lambda: executor.workers == 1)


def processes(room: Path) -> set[str]:
    """The processes of workers that have begun a job."""
    return {file.name.rpartition(" ")[2] for file in room.glob("* * *")}


def remove_at_work(cluster: Any, node: Any, room: Path, before: set[str]) -> None:
    """Remove a node once its worker, which `before` does not have, is at a job."""
    wait_for(lambda: bool(processes(room) - before))
    cluster.remove_node(node, allow_graceful=False)


@pytest.mark.slow
def test_a_lost_head_is_a_clear_end_and_another_ray_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_actors, "GRACE", 2.0)
    with nodes_of_ray(num_cpus=1) as cluster, closing(actors(tmp_path, address=cluster.address)) as executor:
        scored(executor, "number-1")
        executor.submit([Job(Checkpoint("slow-600", "-"), "search")])
        (head,) = cluster.head_node.all_processes["gcs_server"]
        os.kill(head.process.pid, signal.SIGKILL)
        with pytest.raises(MachineError, match=r"Ray is lost: its head .*\. All scores so far are kept; give the same"):
            executor.completed()
    with nodes_of_ray(num_cpus=1) as cluster, closing(actors(tmp_path, address=cluster.address)) as executor:
        assert scored(executor, "number-2")["number-2"].scores == {"task": [2.0]}


@pytest.mark.slow
def test_a_local_ray_ends_with_the_executor(tmp_path: Path) -> None:
    """Nothing of it is left among the processes that this one has started."""
    others = of_ray()
    with closing(actors(tmp_path, workers=2)) as executor:
        assert executor.workers == 2
        assert scored(executor, "number-1", "number-2")["number-2"].scores == {"task": [2.0]}
        mine = of_ray() - others
        assert len(mine) >= 4
    wait_for(lambda: not mine & of_ray())


def of_ray() -> set[int]:
    """The processes of any Ray below this process."""
    parents: dict[int, int] = {}
    lines: dict[int, str] = {}
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent, *_ = (each / "stat").read_text().rpartition(") ")[2].split()
            if state != "Z":
                parents[int(each.name)] = int(parent)
                lines[int(each.name)] = (each / "cmdline").read_text()
    below = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in below} - below:
        below |= more
    return {process for process in below if any(word in lines.get(process, "") for word in ("raylet", "gcs_", "ray::"))}


def test_variables_of_workers_are_theirs_and_hold_no_secret(tmp_path: Path, ray_address: str) -> None:
    settings = {"address": ray_address, "workers": 1, "environment": {"MINE": "a, b"}}
    with closing(actors(tmp_path, **settings)) as executor:
        assert executor.ask(variable, "MINE") == "a, b"
    with pytest.raises(ValueError, match=r"executor\.environment\.HF_TOKEN: expected no secret"):
        check_overrides(["executor.environment.HF_TOKEN=something"], {})


def variable(_: object, name: str) -> str | None:
    return os.environ.get(name)
