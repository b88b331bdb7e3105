"""W&B after a run: syncing offline runs, and the report that compares strategies, against a service on this machine."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from evohydra.report import sharing
from tests.commands import python
from tests.fake_wandb import fake_service
from tests.saved_runs import save_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep whose jobs, but for the last, were logged to W&B; job 3 was killed once."""
    root = save_sweep(tmp_path / "sweep")
    for number in range(9):
        at = root / str(number) / "wandb"
        for time in ("20260101_120000", *(["20260101_130000"] if number == 3 else [])):
            (at / f"offline-run-{time}-id{number}").mkdir(parents=True)
        (at / "id").write_text(f"id{number}\n")
    return root


def _without_login(root: Path) -> dict[str, str]:
    return {"HOME": str(root), "NETRC": str(root / "none"), "MPLCONFIGDIR": str(root / "mpl")}


def test_without_a_login_it_says_what_to_do(sweep: Path, tmp_path: Path) -> None:
    refused = python("-m", "evohydra.report", sweep, "--wandb", cwd=tmp_path, **_without_login(tmp_path))
    assert refused.returncode == 1
    assert "evohydra: not logged in to W&B: run `wandb login`, or set WANDB_API_KEY" in refused.stderr
    assert refused.stdout.strip() == str(sweep / "report.html")  # which needs no login


def test_the_latest_offline_run_of_each_job_is_synced(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "logged_in", lambda: True)
    commands: list[Any] = []
    synced = sharing.sync([sweep], lambda command: commands.append(command) or 0)
    assert [path.name for path in synced] == [
        f"offline-run-20260101_1{3 if number == 3 else 2}0000-id{number}" for number in range(9)
    ]
    assert commands == [[sys.executable, "-m", "wandb", "sync", str(path)] for path in synced]
    with pytest.raises(OSError, match=r"wandb sync .*id0 failed"):
        sharing.sync([sweep], lambda _: 1)
    with pytest.raises(ValueError, match=r"no offline W&B runs in .*choose tracker=wandb"):
        sharing.sync([sweep / "9"])
    monkeypatch.setattr(sharing, "logged_in", lambda: False)
    with pytest.raises(ValueError, match="run `wandb login`"):
        sharing.sync([sweep])


def test_the_report_compares_the_strategies_of_these_runs(sweep: Path, tmp_path: Path) -> None:
    with fake_service() as (address, asked):
        login = {"WANDB_BASE_URL": address, "WANDB_API_KEY": "0" * 40}
        done = python("-m", "evohydra.report", sweep, "--wandb", cwd=tmp_path, **_without_login(tmp_path), **login)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"{address}/me/evohydra/reports/evohydra:-sweep--")
    (saved,) = (request["variables"] for request in asked if "upsertView" in request["query"])
    assert (saved["entityName"], saved["projectName"], saved["displayName"]) == ("me", "evohydra", "evohydra: sweep")
    blocks = json.loads(saved["spec"])["blocks"]
    grids = [block["metadata"] for block in blocks if block["type"] == "panel-grid"]
    for grid in grids:
        (runs,) = grid["runSets"]
        assert [f"id{number}" for number in range(9)] in _values(runs["filters"])
    assert grids[0]["runSets"][0]["grouping"] == [{"section": "run", "name": "jobType"}]
    kinds = [panel["viewType"] for grid in grids for panel in grid["panelBankSectionConfig"]["panels"]]
    assert kinds == ["Run History Line Plot", "Bar Chart", "Scatter Plot", "Media Browser", "Run Comparer"]
    text = json.dumps(blocks, ensure_ascii=False)
    assert "8 of 10 runs have ended with a winner" in text
    assert "| cmaes | random |" in text


def test_runs_that_were_not_logged_and_a_missing_package(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "logged_in", lambda: True)
    with pytest.raises(ValueError, match="no W&B runs"):
        sharing.share([sweep / "9"], "nine")
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(ValueError, match=r"pip install.*sharing"):
        sharing.share([sweep], "sweep")


def _values(filters: Any) -> list[Any]:
    if not isinstance(filters, dict):
        return []
    return [filters.get("value"), *(value for each in filters.get("filters") or [] for value in _values(each))]
