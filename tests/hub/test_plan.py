"""Plans of models on the hub: headers and small files alone, from the stand-in."""

import re
from pathlib import Path
from typing import Any

import pytest

from evohydra.hub import headers
from evohydra.merging.checkpoints import SourceError
from evohydra.plan import plan
from tests.commands import built
from tests.hub.conftest import point_at
from tests.hub.language_models import ABEL, SHISA
from tests.hub.server import Hub
from tests.tiny_models import save_task

NOWHERE = "http://127.0.0.1:9"  # a port where nobody listens


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Two sources that are safetensors on the hub, and one whose safetensors the hub's own bot has made."""
    task = save_task(tmp_path / "task")
    return [
        "model=shisa+wizardmath", "merge=task_arithmetic", "optimizer=cmaes", "fitness=full", "tokenizer=base",
        "baselines=null", "budget=12", "optimizer.population=6", "tracker=none", *own_task(task),
    ]  # fmt: skip


def own_task(task: Path) -> list[str]:
    """A benchmark that needs no hub."""
    from tests.tiny_models import overrides

    return [each for each in overrides(task.parent, task, task, task, task) if "benchmark" in each]


def whole_weights(hub: Hub) -> list[str]:
    """Requests for the content of weights that asked for more than their beginning."""
    found = []
    for each in hub.asked:
        if each.method == "GET" and (".safetensors" in each.path or "/lfs/" in each.path) and "index" not in each.path:
            begins = re.fullmatch(r"bytes=\d+-(\d+)", each.range or "")
            if begins is None:
                found.append(each.path)
    return found


def test_no_weights_are_fetched(online: Hub, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "SMALL", 0)
    found = plan(arguments)
    assert whole_weights(online) == []
    document: dict[str, Any] = found.document
    assert document["memory"]["download"] > 0
    assert {"shisa", "wizardmath", "base"} == set(document["sources"])
    assert document["not_checked"]
    asked = [each for each in online.asked if each.range]
    assert asked  # the headers


def test_a_plan_by_headers_is_that_of_whole_files(
    online: Hub, arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(headers, "SMALL", 0)
    by_headers = plan(["calibrate=false", *arguments]).document
    built(arguments, tmp_path / "run")  # downloads
    whole = plan(["calibrate=false", *arguments]).document
    for key in ("sources", "merge", "genes", "doubts", "licences", "examples", "work"):
        assert by_headers[key] == whole[key]
    assert by_headers["memory"]["download"] > whole["memory"]["download"] == 0


def test_nothing_of_headers_stays_in_caches(
    online: Hub, arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(headers, "SMALL", 0)
    plan(arguments)
    left = [path for path in tmp_path.rglob("*.safetensors") if path.is_file()]
    assert left == []
    assert len(built(arguments, tmp_path / "run").models.sources) == 2


def test_calibration_wants_whole_sources(online: Hub, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "SMALL", 0)
    with pytest.raises(ValueError, match="calibrate=true: expected all sources on this machine"):
        plan(["calibrate=true", *arguments])


def test_without_a_network(arguments: list[str], online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(NOWHERE, monkeypatch)
    with pytest.raises(SourceError) as caught:
        plan(arguments)
    assert SHISA in str(caught.value)
    assert "model.sources.shisa.path=" in str(caught.value)


def test_pickles_say_nothing_of_themselves(online: Hub, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "SMALL", 0)
    more = [each.replace("shisa+wizardmath", "shisa+abel") for each in arguments]
    with pytest.raises(SourceError, match=f"{ABEL}.* holds pickles only.*evohydra.convert"):
        plan([*more, "model.sources.abel.convert=weights_only"])
