"""Files that belong together change at once, wherever the process is killed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from evohydra import files
from evohydra.files import READY, ROOM, current, finish, read_json, together
from evohydra.report.gathering import gather
from tests.commands import carried_out, workspace
from tests.commands import files as content
from tests.kill_repeatedly import without_seconds

KINDS = ("winner", "winner-unverified", "summary.json", "page-*.html")
OLD = {"winner/a": b"old", "winner/b": b"old", "summary.json": b"old", "page-one.html": b"old", "ledger": b"kept"}
NEW = {"winner-unverified/a": b"new", "summary.json": b"new", "page-two.html": b"new"}


class Killed(BaseException):
    """As by a signal: nothing of what comes after it in the code happens."""


def written(room: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (room / name).parent.mkdir(parents=True, exist_ok=True)
        (room / name).write_bytes(data)


def seen(directory: Path) -> dict[str, bytes]:
    """What a reader finds who asks `current` for each file of a result."""
    names = {file.split("/")[0] for file in (*OLD, *NEW)}
    places = {name: current(directory, name) for name in names}
    found = {name: content(path) if path.is_dir() else {"": path.read_bytes()} for name, path in places.items()
             if path.exists()}  # fmt: skip
    return {f"{name}/{below}".rstrip("/"): data for name, each in found.items() for below, data in each.items()}


STEPS: dict[str, tuple[object, str]] = {
    "rename": (Path, "rename"), "unlink": (Path, "unlink"), "rmtree": (shutil, "rmtree"), "replace": (Path, "replace"),
    "rmdir": (Path, "rmdir"), "fsync": (os, "fsync"),
}  # fmt: skip


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], int]:
    """Kill before operation number `step` on files; the function tells how many there were."""
    done = 0

    def counted(original: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            nonlocal done
            done += 1
            if done >= step:  # also what `finally` would do does not happen
                raise Killed
            return original(*given, **named)

        return call

    for owner, name in STEPS.values():
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    return lambda: done


def test_a_reader_finds_all_old_or_all_new_files_wherever_the_kill_comes(tmp_path: Path) -> None:
    kept = {"ledger": b"kept"}
    states = []
    for step in range(1, 200):
        directory = tmp_path / str(step)
        written(directory, OLD)
        with pytest.MonkeyPatch.context() as patch:
            count = kill_at(patch, step)
            try:
                with together(directory, KINDS) as room:
                    written(room, NEW)
                finished = True
            except Killed:
                finished = False
        found = seen(directory)
        assert found in ({**NEW, **kept}, OLD), step
        states.append(found == {**NEW, **kept})
        finish(directory)  # as the next command does
        assert seen(directory) == found
        assert not (directory / READY).exists()
        with together(directory, KINDS) as room:
            written(room, NEW)
        assert content(directory) == {**NEW, **kept}
        if finished:
            assert count() < step
            break
    assert states == sorted(states)
    assert 5 < states.index(True) < len(states) - 5  # kills came before and after the change


def test_an_error_in_the_room_changes_nothing(tmp_path: Path) -> None:
    written(tmp_path, OLD)

    def fill() -> None:
        with together(tmp_path, KINDS) as room:
            written(room, NEW)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fill()
    assert content(tmp_path) == OLD


@pytest.mark.parametrize("text", ["", "{", "null", "[1]", "[" * 100000, '"\ud800'.encode("utf-8", "surrogatepass")])
def test_a_damaged_file_is_named(tmp_path: Path, text: str | bytes) -> None:
    file = tmp_path / "summary.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"summary.json is damaged"):
        read_json(file)


def test_an_extended_run_that_is_killed_while_its_files_change_is_all_old_or_all_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*workspace(tmp_path), "baselines=null", "top=1"]
    run = tmp_path / "run"
    carried_out([*arguments, "budget=6"], run)
    before = content(run)
    with monkeypatch.context() as patch:
        patch.setattr(
            files, "finish", lambda directory: (_ for _ in ()).throw(Killed) if (directory / READY).exists() else None
        )
        with pytest.raises(Killed):
            carried_out([*arguments, "budget=12"], run)
    assert (run / READY / "summary.json").is_file()
    assert read_json(run / "summary.json")["evaluations"] == 6
    assert content(run / "winner") == {
        n.removeprefix("winner/"): d for n, d in before.items() if n.startswith("winner/")
    }
    (job,) = gather([run])  # a report now shows what has become true
    assert job.summary is not None
    assert job.summary["evaluations"] == 12
    assert job.recipe is not None
    carried_out([*arguments, "budget=12"], run)
    carried_out([*arguments, "budget=12"], tmp_path / "alone" / "run")
    assert not (run / READY).exists()
    for name in ("summary.json", "recipe.json"):
        assert without_seconds(read_json(run / name)) == without_seconds(read_json(tmp_path / "alone" / "run" / name))
    assert not (run / ROOM).exists()


def test_a_foreign_recipe_beside_a_source_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arguments = [*workspace(tmp_path), "baselines=null", "top=1", "budget=6"]
    (tmp_path / "one" / "recipe.json").write_text('["another", "program"]')
    (tmp_path / "two" / "recipe.json").write_text('{"format": 2, "recipe": {"kind": "nothing"}}')
    carried_out(arguments, tmp_path / "run")
    told = [record.message for record in caplog.records if "says nothing of how it was made" in record.message]
    assert {message.split(":")[0] for message in told} == {"source one", "source two"}
    assert read_json(tmp_path / "run" / "recipe.json")["made_from"] == {}


@pytest.mark.parametrize("name", ["../precious", "/precious", "a/b", "..", "", 7])
@pytest.mark.parametrize("key", ["old", "new"])
def test_nothing_outside_of_the_directory_is_touched(key: str, name: object, tmp_path: Path):
    """A run's directory may come from someone else."""
    run = tmp_path / "run"
    written(run / READY, {"summary.json": b"new"})
    (tmp_path / "precious").write_text("years")
    files.write_json(run / READY / files.NAMES, {"old": [], "new": [], key: [name]})
    with pytest.raises(ValueError, match="expected plain names of files"):
        finish(run)
    assert (tmp_path / "precious").read_text() == "years"
