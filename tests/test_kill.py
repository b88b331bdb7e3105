"""A run that is killed at random moments ends as if nothing had happened."""

from pathlib import Path

import pytest

from tests.commands import REPOSITORY, carried_out, environment, json_lines, python, workspace
from tests.contracts.discovery import SEARCHES, names
from tests.kill_repeatedly import content, differences, kill


@pytest.fixture(autouse=True)
def user_environment(monkeypatch: pytest.MonkeyPatch):
    for key, value in environment().items():
        monkeypatch.setenv(key, value)


@pytest.mark.parametrize(
    "searched",
    [
        [],
        ["merge=task_arithmetic+dfs", "optimizer=catcma"],
        ["fitness=racing"],
        pytest.param(["fitness=irt", "fitness.calibrate=6"], marks=pytest.mark.slow),
        *(pytest.param(["merge=dfs", f"optimizer={name}"], marks=pytest.mark.slow) for name in SEARCHES),
    ],
    ids=" ".join,
)
def test_killed_at_random_moments(tmp_path: Path, searched: list[str]):
    overrides = [*workspace(tmp_path), "budget=14", "top=3", "baselines=null", *searched]
    kills, differing = differences(2, 3, overrides, tmp_path / "runs")
    assert differing == []
    assert any(each.alive for each in kills)
    genomes = [each.genomes for each in kills]
    assert genomes == sorted(genomes)  # nothing that was on file is lost


def test_killed_while_the_winner_is_written(tmp_path: Path):
    overrides = [*workspace(tmp_path), "budget=6", "top=1", "baselines=null"]
    (tmp_path / "killed").mkdir()
    alone, killed = tmp_path / "alone" / "run", tmp_path / "killed" / "run"
    carried_out(overrides, alone)
    before = 6 + len(json_lines(alone / "scores.jsonl"))
    last = kill(overrides, killed, 6, after=600.0, more=before + 1, longer=0.0)
    assert last.alive
    assert last.phase == "writing the winner"
    assert not (killed / "summary.json").exists()
    half = killed / ".result.partial" / ".winner.partial"  # as after a kill in the middle of a file
    half.mkdir(parents=True, exist_ok=True)
    (half / "model.safetensors").write_bytes(b"half")
    carried_out(overrides, killed)
    assert content(killed) == content(alone)


def test_the_search_of_each_optimizer_in_each_space(tmp_path: Path):
    done = python("-m", "tests.kill_searches", tmp_path, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3 * (len(names("optimizer")) - 1), done.stdout
