"""The ledger: what is on file is not evaluated again, and no accident leaves it torn or mixed with another run."""

import fcntl
import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evohydra.recipe import Checkpoint, Node, digest
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.job import Evaluation
from evohydra.searching.json_lines import SIGN, JsonLines, LedgerError, alone_in, in_use
from evohydra.searching.ledger import Ledger, Record
from evohydra.searching.objectives import Objective

IDENTITY = {"seed": 1, "model": {"one": {"fingerprint": "ab"}}, "optimizer": {"sigma": 0.2}}
ROOT = Path(__file__).parents[1]


class Counting:
    """An evaluation that knows how often it was asked; a recipe's score is in its name."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Split]] = []

    def __call__(self, recipe: Node, split: Split) -> Evaluation:
        assert isinstance(recipe, Checkpoint)
        self.calls.append((recipe.name, split))
        if recipe.name == "bad":
            return Evaluation({}, {"merge": 0.1}, "MergeError: not finite")
        return Evaluation({"task": [float(recipe.name), 0.5]}, {"merge": 0.1})


def genome(index: int) -> np.ndarray:
    return np.array([index / 7, 1 - index / 7])


def fill(ledger: Ledger, names: list[str], evaluate: Counting) -> list[Record]:
    records = []
    for i, name in enumerate(names):
        known = ledger.on_file(genome(i)[None])
        if known:
            (record,) = known
        else:
            recipe = Checkpoint(name, "-")
            done = evaluate(recipe, "search")
            fitness = Objective().fitness(done.scores) if done.scores else None
            record = Record(i, i // 2, genome(i).tolist(), {"w": i / 7}, digest(recipe), fitness, done.scores,
                            done.seconds, done.error)  # fmt: skip
        ledger.add(record)
        records.append(record)
    return records


def run(directory: Path, names: list[str], identity: dict[str, Any] = IDENTITY) -> tuple[list[Record], Counting]:
    evaluate, ledger = Counting(), Ledger(directory, identity)
    try:
        return fill(ledger, names, evaluate), evaluate
    finally:
        ledger.close()


def test_a_replay_evaluates_only_what_is_missing(tmp_path: Path) -> None:
    first, evaluate = run(tmp_path, ["0.0", "1.0", "bad"])
    assert [name for name, _ in evaluate.calls] == ["0.0", "1.0", "bad"]
    again, evaluate = run(tmp_path, ["0.0", "1.0", "bad", "0.5"])
    assert evaluate.calls == [("0.5", "search")]
    assert again[:3] == first
    assert [record.fitness for record in again] == [0.25, 0.75, None, 0.5]
    assert again[2].error == "MergeError: not finite"
    assert again[1].recipe == digest(Checkpoint("1.0", "-"))
    assert (again[3].index, again[3].generation, again[3].genes) == (3, 1, {"w": 3 / 7})
    assert again[3].genome == genome(3).tolist()


def test_the_whole_run_is_one_line_a_genome(tmp_path: Path) -> None:
    run(tmp_path, ["0.0", "1.0"])
    before = (tmp_path / "ledger.jsonl").read_bytes()
    run(tmp_path, ["0.0", "1.0", "0.5"])
    after = (tmp_path / "ledger.jsonl").read_bytes()
    assert after.startswith(before)
    assert [json.loads(line)["index"] for line in after.splitlines()] == [0, 1, 2]


def test_lines_of_a_generation_that_is_judged_anew_are_replaced(tmp_path: Path) -> None:
    """As where a smaller budget had cut it short; those before it stay, byte for byte."""
    run(tmp_path, ["0.0", "1.0", "0.5", "0.25"])
    before = (tmp_path / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    with closing(Ledger(tmp_path, IDENTITY)) as ledger:
        first, second, third = ledger.on_file(np.array([genome(i) for i in range(3)])) or ()
        for record in (first, second, replace(third, fitness=0.9)):
            ledger.add(record)
    after = (tmp_path / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    assert after[:2] == before[:2]
    assert [json.loads(line)["fitness"] for line in after[2:]] == [0.9]


@pytest.mark.parametrize("kept", [0, 1, 20])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, kept: int) -> None:
    first, _ = run(tmp_path, ["0.0", "1.0", "0.5"])
    file = tmp_path / "ledger.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1] + lines[2][:kept])
    again, evaluate = run(tmp_path, ["0.0", "1.0", "0.5"])
    assert evaluate.calls == [("0.5", "search")]
    assert again == first
    assert file.read_bytes().splitlines(keepends=True) == lines


def test_a_last_line_that_lacks_only_its_end_is_torn_too(tmp_path: Path) -> None:
    run(tmp_path, ["0.0", "1.0"])
    file = tmp_path / "ledger.jsonl"
    file.write_bytes(file.read_bytes()[:-1])
    assert [name for name, _ in run(tmp_path, ["0.0", "1.0"])[1].calls] == ["1.0"]
    assert file.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("damage", [b"{ what?\n", b"\n", b"\xff\xfe\n", b"null\n", b"{}\n"])
def test_a_damaged_line_in_the_middle_is_an_error(tmp_path: Path, damage: bytes) -> None:
    run(tmp_path, ["0.0", "1.0", "0.5"])
    file = tmp_path / "ledger.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    content = lines[0] + damage + lines[2]
    file.write_bytes(content)
    with pytest.raises(LedgerError, match="line 2 is damaged"):
        run(tmp_path, ["0.0", "1.0", "0.5"])
    assert file.read_bytes() == content


def test_another_genome_than_the_one_on_file_is_an_error(tmp_path: Path) -> None:
    run(tmp_path, ["0.0", "1.0"])
    ledger = Ledger(tmp_path, IDENTITY)
    with pytest.raises(LedgerError, match="line 1 holds another genome"):
        ledger.on_file(genome(0)[None] + 1e-6)
    assert ledger.on_file(genome(0)[None] + 1e-15) is not None
    ledger.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "seed was 1, is now 2"),
        ({"model": {"one": {"fingerprint": "cd"}}}, r"model\.one\.fingerprint was 'ab', is now 'cd'"),
        ({"model": {"one": {"fingerprint": "ab"}, "two": 1}}, r"model\.two was None, is now 1"),
        ({"benchmark": "mgsm"}, "benchmark was None, is now 'mgsm'"),
    ],
)
def test_another_configuration_is_refused_and_the_difference_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run(tmp_path, ["0.0"])
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(LedgerError, match=message) as raised:
        run(tmp_path, ["0.0"], IDENTITY | change)
    assert "sigma" not in str(raised.value)  # what is the same is not named
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert run(tmp_path, ["0.0"])[1].calls == []  # the refused run has let go of the directory


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments], cwd=ROOT, env=dict(os.environ), capture_output=True,
        text=True, check=False,
    )  # fmt: skip


def test_two_processes_on_one_run_are_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, IDENTITY)
    code = (
        "import sys; from pathlib import Path\n"
        f"from evohydra.searching.ledger import Ledger; Ledger(Path(sys.argv[1]), {IDENTITY!r})"
    )
    done = python(code, str(tmp_path))
    assert done.returncode == 1
    assert "LedgerError" in done.stderr
    assert "another process is working on this run" in done.stderr
    ledger.close()
    done = python(f"{code}.close()", str(tmp_path))
    assert done.returncode == 0, done.stderr


LOOKING = """
import sys
from pathlib import Path
from evohydra.searching.json_lines import in_use
print("ready", flush=True)
seen = [0, 0]
while not (Path(sys.argv[1]) / "end").exists():
    seen[in_use(Path(sys.argv[1]))] += 1
print(*seen)
"""


def looking(directory: Path) -> list[subprocess.Popen[str]]:
    """Two processes that look again and again whether a run is at work."""
    command = [sys.executable, "-c", LOOKING, str(directory)]
    started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert all(each.stdout is not None and each.stdout.readline() == "ready\n" for each in started)
    return started


def test_a_report_that_looks_on_keeps_no_run_from_starting(tmp_path: Path) -> None:
    started = looking(tmp_path)
    for _ in range(300):
        with alone_in(tmp_path):
            assert in_use(tmp_path)
    (tmp_path / "end").touch()
    for each in started:
        idle, busy = map(int, each.communicate(timeout=60)[0].split())
        assert idle + busy > 100


def test_those_who_look_are_no_run(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        pass
    started = looking(tmp_path)
    assert not any(in_use(tmp_path) for _ in range(2000))
    (tmp_path / "end").touch()
    assert all(each.communicate(timeout=60)[0].split()[1] == "0" for each in started)


def test_a_run_starts_where_its_sign_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("evohydra.searching.json_lines.PATIENCE", 0.05)
    (tmp_path / SIGN).touch()
    with (tmp_path / SIGN).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        with alone_in(tmp_path):
            assert "reports will not see that this run is at work" in caplog.text


FULL_DISK = """
import json, resource, sys
from pathlib import Path
from evohydra.searching.json_lines import JsonLines
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
lines = JsonLines(Path(sys.argv[1]))
try:
    for index in range(100):
        lines.append({"index": index, "text": "x" * 90})
except OSError as error:
    print(json.dumps({"entries": len(lines.entries), "error": type(error).__name__}))
"""


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """A limit on the size of files does what a full disk does: a write that ends in the middle of a line."""
    file = tmp_path / "ledger.jsonl"
    done = python(FULL_DISK, str(file))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["error"] == "OSError"
    content = file.read_bytes()
    assert content.endswith(b"}\n")
    entries = [json.loads(line) for line in content.splitlines()]
    assert [entry["index"] for entry in entries] == list(range(told["entries"]))
    assert 3 < told["entries"] < 10
    lines = JsonLines(file)  # and with room again it goes on
    lines.append({"index": told["entries"]})
    lines.close()
    assert file.read_bytes().startswith(content)
