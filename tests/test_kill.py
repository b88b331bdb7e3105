"""A run that is killed at random moments ends as if nothing had happened."""

import itertools
from pathlib import Path

import pytest

from tests.commands import REPOSITORY, carried_out, environment, json_lines, python, workspace, write_lines
from tests.contracts.discovery import SEARCHES, names
from tests.kill_repeatedly import content, differences, kill, scored_twice
from tests.soak import PLACES, cases


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
    assert genomes == sorted(genomes)
    assert sum(each.lost for each in kills) == 0


FORGETFUL = """
import sys
from pathlib import Path

for argument in sys.orig_argv:
    if argument.startswith("hydra.run.dir="):
        run = Path(argument.removeprefix("hydra.run.dir="))
        if (run / "ledger.jsonl").is_file() and (run / "run.json").is_file():
            (run / "scores.jsonl").unlink(missing_ok=True)
"""


def test_the_kills_see_work_that_is_lost_and_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run that deletes its scores at every start ends like one that was left alone; only its lines tell."""
    (tmp_path / "forgetful").mkdir()
    (tmp_path / "forgetful" / "sitecustomize.py").write_text(FORGETFUL)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'forgetful'}:{REPOSITORY}")
    overrides, run = [*workspace(tmp_path), "budget=12", "top=1", "baselines=null"], tmp_path / "runs" / "run"
    run.parent.mkdir()
    first, second = (kill(overrides, run, 12, after=600.0, more=4, longer=0.0) for _ in range(2))
    assert first.alive
    assert first.genomes > 0
    assert first.lost == 0
    assert second.lost >= 1


def test_what_is_scored_twice_is_counted(tmp_path: Path):
    entry = {"recipe": "a", "split": "test", "examples": None, "copied": False}
    others = [entry | {"split": "search"}, entry | {"copied": True}, entry | {"examples": {"sums": [1]}}]
    write_lines(tmp_path / "scores.jsonl", [entry, *others])
    assert scored_twice(tmp_path) == 0
    write_lines(tmp_path / "scores.jsonl", [entry, *others, entry | {"label": "winner"}, entry])
    assert scored_twice(tmp_path) == 2


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
    for name in ("run.json", "settings.json"):
        (killed / f".{name}.4711.partial").write_bytes(b"half")
    carried_out(overrides, killed)
    assert content(killed) == content(alone)


def test_the_search_of_each_optimizer_in_each_space(tmp_path: Path):
    done = python("-m", "tests.kill_searches", tmp_path, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3 * (len(names("optimizer")) - 1), done.stdout


def test_the_soak_comes_to_every_optimizer_with_every_fitness_at_every_place():
    pairs = set(itertools.product(names("optimizer"), names("fitness")))
    first = [(case.optimizer, case.fitness) for case in itertools.islice(cases(0), len(pairs))]
    assert set(first) == pairs
    everything = list(itertools.islice(cases(0), len(pairs) * len(PLACES)))
    assert len(set(everything)) == len(everything) == len(pairs) * len(PLACES)


@pytest.mark.slow
def test_some_of_the_soak(tmp_path: Path):
    done = python("-m", "tests.soak", "--minutes", "1", cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lines lost, nothing scored twice, 0 bits different" in done.stdout
