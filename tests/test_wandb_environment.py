"""W&B's own variables count, unless the command line says otherwise; a run that is refused is not logged."""

import logging
import os
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import pytest
import wandb

from evohydra.checks.libraries import git_state
from evohydra.report.sharing import sync
from evohydra.searching.ledger import LedgerError
from evohydra.trackers import Guarded
from evohydra.trackers.wandb import WandbTracker, _answers, run_id, where
from tests.commands import carried_out, evohydra, json_lines, workspace, write_lines
from tests.test_tracker import read_back

KEY = "0" * 40


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a tracker in an environment of these variables; gives what W&B is asked to begin, or None."""
    for name in ("MODE", "DISABLED", "PROJECT", "NAME", "DIR", "RUN_GROUP", "JOB_TYPE", "RUN_ID", "TAGS", "RESUME"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    asked: list[dict[str, Any]] = []

    def init(**given: Any) -> Any:
        asked.append(given)
        return SimpleNamespace(dir=str(tmp_path / "there" / "files"), finish=lambda exit_code: None)

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr("evohydra.trackers.wandb.logged_in", lambda: True)
    monkeypatch.setattr("evohydra.trackers.wandb._answers", lambda: True)

    def begin(variables: dict[str, str], **settings: Any) -> dict[str, Any] | None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        tracker = WandbTracker(
            name="run", directory=tmp_path / "run", config={}, group="sweep", strategy="cmaes", **settings
        )
        tracker.close(failed=False)
        return asked[-1] if asked else None

    return begin


@pytest.mark.parametrize(
    ("variables", "settings", "mode"),
    [
        ({}, {}, "online"),
        ({"WANDB_MODE": "offline"}, {}, "offline"),
        ({"WANDB_MODE": "dryrun"}, {}, "offline"),
        ({"WANDB_MODE": "offline"}, {"mode": "online"}, "online"),
        ({"WANDB_MODE": "online"}, {"mode": "offline"}, "offline"),
        ({"WANDB_DISABLED": "true"}, {"mode": "online"}, "online"),
        ({"WANDB_MODE": "disabled"}, {}, None),
        ({"WANDB_DISABLED": "true"}, {}, None),
        ({"WANDB_DISABLED": "false"}, {}, "online"),
        ({}, {"mode": "disabled"}, None),
    ],
)
def test_whether_anything_is_logged_and_where(
    variables: dict[str, str], settings: dict[str, Any], mode: str | None, begun: Any
) -> None:
    asked = begun(variables, **settings)
    assert (asked and asked["mode"]) == mode


def test_where_wandb_does_not_answer_a_run_is_recorded_offline(
    begun: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("evohydra.trackers.wandb._answers", lambda: False)
    with caplog.at_level(logging.WARNING, "evohydra"):
        assert begun({})["mode"] == "offline"
    assert "cannot be reached: the run is recorded offline" in caplog.text


@pytest.mark.parametrize(
    ("upload", "said"), [(None, "no weights (tracker.upload=winner"), ("winner", "and the winner")]
)
def test_a_new_run_says_what_is_sent(
    upload: str | None, said: str, begun: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "evohydra"):
        begun({}, upload=upload)
        assert caplog.text.count("sent are settings, the command") == 1
        assert said in caplog.text
        begun({}, upload=upload)  # it goes on
        assert caplog.text.count("sent are settings, the command") == 1


def test_weights_are_uploaded_only_when_asked(begun: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    winner = tmp_path / "winner"
    winner.mkdir()
    (winner / "model.safetensors").write_bytes(b"weights")
    (winner / "README.md").write_text("card")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for upload, kept in ((None, {"model.safetensors"}), ("winner", set())):
        tracker = WandbTracker(
            name="run", directory=tmp_path / "run", config={}, group=None, strategy="de", mode="online", upload=upload
        )
        tracker._run = SimpleNamespace(id="seven", finish=lambda exit_code: None)
        entries = tracker._winner(winner, {}).manifest.entries
        assert set(entries) == {"model.safetensors", "README.md"}
        assert {name for name, entry in entries.items() if entry.ref is not None} == kept


def test_the_state_of_a_checkout(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    commands = ("init -q -b mine", "config user.email a@b", "config user.name a", "add file", "commit -q -m first")
    (tmp_path / "file").write_text("1")
    for command in commands:
        subprocess.run(["git", "-C", str(tmp_path), *command.split()], check=True)
    found = git_state(tmp_path) or {}
    assert (found["branch"], found["changed"], len(str(found["commit"]))) == ("mine", False, 40)
    (tmp_path / "file").write_text("2")
    assert (git_state(tmp_path) or {})["changed"]


def test_whether_wandb_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evohydra.trackers.wandb.getproxies", dict)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setattr(wandb, "setup", lambda: SimpleNamespace(settings=SimpleNamespace(base_url=address)))
        assert not _answers()
        free.listen()
        assert _answers()
    monkeypatch.setattr("evohydra.trackers.wandb.getproxies", lambda: {"https": "http://proxy"})
    assert _answers()


def test_a_mode_that_is_none_is_an_error(begun: Any) -> None:
    with pytest.raises(ValueError, match=r"WANDB_MODE: expected one of online, .*got 'ofline'"):
        begun({"WANDB_MODE": "ofline"})


@pytest.mark.parametrize(
    ("variable", "argument", "ours"),
    [("NAME", "name", "run"), ("RUN_GROUP", "group", "sweep"), ("JOB_TYPE", "job_type", "cmaes")],
)
def test_what_the_environment_names_is_left_to_wandb(variable: str, argument: str, ours: str, begun: Any) -> None:
    assert begun({})[argument] == ours
    assert begun({f"WANDB_{variable}": "mine"})[argument] is None


def test_project_directory_tags_and_id(begun: Any, tmp_path: Path) -> None:
    asked = begun({})
    assert (asked["project"], asked["dir"], asked["tags"]) == ("evohydra", str(tmp_path / "run"), [])
    (tmp_path / "run" / "wandb" / "id").unlink()
    asked = begun({"WANDB_PROJECT": "p", "WANDB_DIR": str(tmp_path), "WANDB_TAGS": "a, b", "WANDB_RUN_ID": "seven"})
    assert (asked["project"], asked["dir"]) == ("p", str(tmp_path))
    assert (asked["tags"], asked["id"]) == (["a", "b"], "seven")
    assert where(tmp_path / "run") == {"project": "p", "files": str(tmp_path / "there")}
    assert begun({}, project="mine")["project"] == "mine"


def tracked(root: Path, *more: str, **changes: str) -> Any:
    return evohydra(
        *workspace(root), "tracker=wandb", "run=run", "budget=6", "top=1", "start=[]", "baselines=null", *more,
        cwd=root, HOME=str(root), NETRC=str(root / "none"), MPLCONFIGDIR=matplotlib.get_cachedir(), **changes,
    )  # fmt: skip


def test_a_command_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key too, which alone would go online and upload the winner."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    said = {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline", "WANDB_PROJECT": "mine", "WANDB_NAME": "called"}
    process = tracked(tmp_path, **said, WANDB_DIR=str(elsewhere))
    assert process.returncode == 0, process.stderr
    run = tmp_path / "outputs" / "run"
    assert not list((run / "wandb").glob("*run-*"))
    (logged,) = [record["run"] for record in read_back(elsewhere) if record["type"] == "run"]
    assert (logged["project"], logged["display_name"]) == ("mine", "called")
    monkeypatch.setattr("evohydra.report.sharing.logged_in", lambda: True)
    sent: list[str] = []
    sync([run], lambda command: sent.append(command[-1]) or 0)  # type: ignore[func-returns-value]
    assert [Path(path).parent.name for path in sent] == ["wandb"]
    assert Path(sent[0]).is_relative_to(elsewhere)


def test_a_disabled_run_leaves_nothing(tmp_path: Path) -> None:
    process = tracked(tmp_path, WANDB_API_KEY=KEY, WANDB_MODE="disabled")
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "outputs" / "run" / "summary.json").is_file()
    assert not (tmp_path / "outputs" / "run" / "wandb").exists()
    assert "tracker failed" not in process.stderr


class Listening:
    """Keeps what it hears."""

    heard: list[str]

    def __init__(self, **_: object) -> None:
        type(self).heard = ["made"]

    def genome(self, record: Any) -> None:
        self.heard.append(f"genome {record.index}")

    def finish(self, *_: object) -> None:
        self.heard.append("finished")

    def close(self, *, failed: bool) -> None:
        self.heard.append(f"closed, failed={failed}")


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    given = workspace(tmp_path)
    (tmp_path / "conf" / "tracker").mkdir()
    target = "tests.test_wandb_environment.Listening"
    (tmp_path / "conf" / "tracker" / "listening.yaml").write_text(f"_target_: {target}\n_partial_: true\n")
    given[given.index("tracker=none")] = "tracker=listening"
    return [*given, "top=1", "baselines=null"]


@pytest.mark.parametrize("length", [None, 2])
def test_a_refused_run_is_not_logged(length: int | None, arguments: list[str], tmp_path: Path) -> None:
    carried_out([*arguments, "budget=12"], tmp_path / "run")
    assert Listening.heard[:2] == ["made", "genome 0"]
    assert Listening.heard[-2:] == ["finished", "closed, failed=False"]
    ledger = tmp_path / "run" / "ledger.jsonl"
    lines = json_lines(ledger)
    lines[8]["genome"] = [0.123] * (length or len(lines[8]["genome"]))
    write_lines(ledger, lines)
    Listening.heard = []
    with pytest.raises(LedgerError):
        carried_out([*arguments, "budget=18"], tmp_path / "run")
    with pytest.raises(LedgerError):
        carried_out([*arguments, "budget=18", "seed=2"], tmp_path / "run")
    assert Listening.heard == []


def test_a_run_that_goes_on_is_logged_whole(arguments: list[str], tmp_path: Path) -> None:
    carried_out([*arguments, "budget=6"], tmp_path / "run")
    for budget in (6, 12):
        Listening.heard = []
        carried_out([*arguments, f"budget={budget}"], tmp_path / "run")
        assert Listening.heard == [
            "made", *(f"genome {n}" for n in range(budget)), "finished", "closed, failed=False",
        ]  # fmt: skip


def test_a_tracker_that_cannot_be_made_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Any:
        raise ConnectionError("no service")

    with caplog.at_level(logging.WARNING):
        tracker = Guarded(broken, replayed=2)
        assert not caplog.records
        for _ in range(3):
            tracker.genome(None)  # type: ignore[arg-type]
        tracker.close(failed=False)
    assert [record.getMessage() for record in caplog.records] == [
        "the tracker failed and is left out from here on: ConnectionError: no service"
    ]


def test_the_id_is_kept_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_id(tmp_path, new=True)
    monkeypatch.setenv("WANDB_RUN_ID", "other")
    assert run_id(tmp_path, new=True) == first
