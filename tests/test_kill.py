"""A run that is killed at random moments ends as if nothing had happened."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import REPOSITORY, carried_out, environment, json_lines, python, warm_start, workspace, write_lines
from tests.contracts.discovery import SEARCHES, names
from tests.kill_repeatedly import POLL, content, differences, finish, kill, lines, scored_twice, without_seconds
from tests.soak import FITNESS, PLACES, VERIFIED, cases
from tests.tiny_models import save_lucky


@pytest.fixture(autouse=True)
def user_environment(monkeypatch: pytest.MonkeyPatch):
    for key, value in environment().items():
        monkeypatch.setenv(key, value)


VERIFIED_ANSWERS = [
    "optimizer=bo", "optimizer.population=6", "fitness=likelihood", "fitness.references=verified", "fitness.examples=6",
    "benchmark.lm_eval.task=lucky", "benchmark.lm_eval.metric=lucky",
]  # fmt: skip


@pytest.mark.parametrize(
    "searched",
    [
        [],
        ["merge=task_arithmetic+dfs", "optimizer=catcma"],
        VERIFIED_ANSWERS,
        pytest.param(["fitness=racing"], marks=pytest.mark.slow),
        pytest.param(["fitness=irt", "fitness.calibrate=6"], marks=pytest.mark.slow),
        *(pytest.param(["merge=dfs", f"optimizer={name}"], marks=pytest.mark.slow) for name in SEARCHES),
    ],
    ids=" ".join,
)
def test_killed_at_random_moments(tmp_path: Path, searched: list[str]):
    overrides = [*workspace(tmp_path), "budget=14", "top=3", "baselines=null", *searched]
    save_lucky(tmp_path / "task")
    kills, differing = differences(2, 3, overrides, tmp_path / "runs", warm_start)
    assert differing == []
    assert any(each.alive for each in kills)
    genomes = [each.genomes for each in kills]
    assert genomes == sorted(genomes)
    assert sum(each.lost for each in kills) == 0


RUN = """
import json, sys, time
from pathlib import Path

run, kind = Path(sys.argv[1]), sys.argv[2]
run.mkdir(exist_ok=True)
scores, ledger = run / "scores.jsonl", run / "ledger.jsonl"
if kind == "forgets":
    scores.unlink(missing_ok=True)

def known(file):
    return [json.loads(line)["recipe"] for line in file.read_text().splitlines()] if file.exists() else []

def add(file, number):
    line = {"recipe": number, "split": "search", "examples": None, "copied": False, "seconds": time.time()}
    with file.open("a") as opened:
        opened.write(json.dumps(line) + chr(10))

for number in range(8):
    if number not in known(scores) or kind == "does not look":
        add(scores, number)
    if number not in known(ledger):
        add(ledger, number)
    time.sleep(0.03)
(run / "winner").mkdir(exist_ok=True)
for name in ("summary", "recipe", "run"):
    (run / f"{name}.json").write_text("{}")
"""


@pytest.mark.parametrize(
    ("kind", "seen"),
    [("goes on", []), ("forgets", ["lines lost"]), ("does not look", ["scored twice", "scores.jsonl"])],
)
def test_the_kills_see_work_that_is_lost_and_done_again(kind: str, seen: list[str], tmp_path: Path):
    """A run that deletes its scores at every start has the same files in the end; only its lines tell."""

    def begin(_: list[str], directory: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", RUN, str(directory), kind], start_new_session=True)

    kills, differing = differences(4, 3, [], tmp_path, begin)
    assert differing == seen
    assert sum(each.alive for each in kills) >= 2


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
    last = kill(overrides, killed, 6, after=600.0, more=before + 1, longer=0.0, begin=warm_start)
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


def test_killed_in_each_of_the_earlier_generations(tmp_path: Path):
    """kill -9 in the middle of generation 1, then of generation 2: the end is that of a run that was left alone."""
    overrides = [*workspace(tmp_path), "budget=18", "top=1", "baselines=null", "audit=none", "report=false",
                 "merge=linear", "generations=3", "generations_sources=2"]  # fmt: skip
    alone, killed = tmp_path / "alone" / "run", tmp_path / "killed" / "run"
    for directory in (alone, killed):
        directory.parent.mkdir()
    finish(overrides, alone, warm_start)
    for number in (1, 2):
        ledger = killed / f"generation_{number}" / "ledger.jsonl"
        process = warm_start(overrides, killed)
        while process.poll() is None and lines(ledger) < 2:
            time.sleep(POLL)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert 2 <= lines(ledger) <= 6
        assert not (killed / f"generation_{number}" / "kept.json").exists()
        assert not (killed / f"generation_{number + 1}").exists()
    finish(overrides, killed, warm_start)
    assert content(killed) == content(alone)
    assert scored_twice(killed) == 0
    for name in ("generation_1", "generation_2"):
        for log in ("ledger.jsonl", "scores.jsonl"):
            expected, found = (without_seconds(json_lines(run / name / log)) for run in (alone, killed))
            assert found == expected
        assert (killed / name / "kept.json").read_bytes() == (alone / name / "kept.json").read_bytes()
        assert scored_twice(killed / name) == 0


@pytest.mark.parametrize("spaces", [["hybrid"], pytest.param(["parameter", "dataflow"], marks=pytest.mark.slow)])
def test_the_search_of_each_optimizer_in_each_space(spaces: list[str], tmp_path: Path):
    """A hybrid has the genes of both other spaces."""
    done = python("-m", "tests.kill_searches", tmp_path, *spaces, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(spaces) * (len(names("optimizer")) - 1), done.stdout


def test_the_soak_comes_to_every_optimizer_with_every_fitness_at_every_place():
    pairs = set(itertools.product(names("optimizer"), [*names("fitness"), VERIFIED]))
    first = [(case.optimizer, case.fitness) for case in itertools.islice(cases(0), len(pairs))]
    assert set(first) == pairs
    assert sorted([*names("fitness"), VERIFIED]) == sorted(FITNESS)
    everything = list(itertools.islice(cases(0), len(pairs) * len(PLACES)))
    assert len(set(everything)) == len(everything) == len(pairs) * len(PLACES)


@pytest.mark.slow
def test_some_of_the_soak(tmp_path: Path):
    done = python("-m", "tests.soak", "--minutes", "1", cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lines lost, nothing scored twice, 0 bits different" in done.stdout
