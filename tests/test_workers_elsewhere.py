"""Workers on other machines: sources that are not where the driver has them, and a device that it has not."""

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout

from evohydra.assembly import workers
from evohydra.assembly.parts import Parts, found_sources
from evohydra.assembly.settings import Settings
from evohydra.assembly.workers import WorkerMaker, scores_depend_on
from evohydra.families.sources import FoundSources
from evohydra.scoring.worker import Worker
from tests.commands import built, workspace

CLUSTER = ["executor=ray", "executor.address=127.0.0.1:1"]


def parts(tmp_path: Path, *overrides: str) -> Parts:
    """Those of a run on tiny models below `tmp_path`."""
    run = built([*workspace(tmp_path), "budget=6", *overrides], tmp_path / "run")
    _, made = run.make_executor.args  # type: ignore[attr-defined]
    assert isinstance(made, Parts)
    return made


def elsewhere(maker: WorkerMaker, **known: object) -> Worker:
    """The worker that another process makes, where this is `known`."""
    maker._known = replace(maker._known, **known)  # type: ignore[arg-type]
    made = pickle.loads(pickle.dumps(maker))()
    assert isinstance(made, Worker)
    return made


@pytest.mark.parametrize("there", [True, False])
def test_one_worker_at_a_time_fetches_what_a_machine_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """Nobody waits where everything is there."""
    monkeypatch.setenv("EVOHYDRA_CACHE", str(tmp_path / "cache"))
    maker, locked = WorkerMaker(parts(tmp_path)), []

    def found(settings: Settings, paths: Mapping[str, Path]) -> FoundSources:
        (tmp_path / "cache").mkdir(exist_ok=True)
        try:
            with FileLock(tmp_path / "cache" / workers.FETCHING, timeout=0):
                locked.append(False)
        except Timeout:
            locked.append(True)
        return found_sources(settings, paths)

    monkeypatch.setattr(workers, "found_sources", found)
    gone = {} if there else {"paths": {name: tmp_path / "gone" / name for name in maker._known.paths}}
    assert elsewhere(maker, **gone).sources.models[0].name == "one"
    assert locked == [not there]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU")
def test_the_driver_of_a_cluster_needs_no_gpu(tmp_path: Path) -> None:
    made = parts(tmp_path, *CLUSTER, "device=cuda")
    assert scores_depend_on(made).device == "cuda"
    assert made.engine.device.type == "cpu"
    with pytest.raises(ValueError, match="device=cuda, but torch finds no CUDA device here"):
        elsewhere(WorkerMaker(made))


def test_workers_on_another_device_than_the_driver_takes_them_for(tmp_path: Path) -> None:
    maker = WorkerMaker(parts(tmp_path))
    other = "cpu" if torch.cuda.is_available() else "cuda"
    with pytest.raises(ValueError, match=rf"device=auto: expected workers .* for, {other}, got .*; give device=cuda"):
        elsewhere(maker, scores=replace(maker._known.scores, device=other))
