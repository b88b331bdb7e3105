"""Sweeps whose jobs run at once, by joblib and by submitit's local mode: nothing shared, all gathered."""

import json
import subprocess
from pathlib import Path

from tests.commands import evohydra, json_lines, workspace

SMALL = ("budget=6", "top=1", "baselines=null")


def sweep_of(root: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[Path]]:
    """A multirun and its jobs' directories; no run= is given, so that its name is a time, which all jobs must share."""
    done = evohydra("-m", *workspace(root), *SMALL, *arguments, cwd=root)
    (sweep,) = (path for path in (root / "outputs").iterdir() if path.is_dir())
    return done, sorted(path.parent for path in sweep.glob("*/.hydra"))


def ledgers_of(jobs: list[Path], seeds: list[int]) -> list[list[list[float]]]:
    """The genomes of each job, whose ledger holds its own alone."""
    assert [json.loads((job / "run.json").read_text())["search"]["seed"] for job in jobs] == seeds
    ledgers = [json_lines(job / "ledger.jsonl") for job in jobs]
    assert all([line["index"] for line in lines] == list(range(6)) for lines in ledgers)
    return [[line["genome"] for line in lines] for lines in ledgers]


def test_joblib_and_a_job_that_fails(tmp_path: Path) -> None:
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done, jobs = sweep_of(tmp_path, *launcher, "seed=1,-1,2", "report=true")  # no generator has a negative seed
    assert done.returncode != 0
    assert [job.name for job in jobs] == ["0", "1", "2"]
    first, second = ledgers_of([jobs[0], jobs[2]], [1, 2])
    assert first != second
    assert json_lines(jobs[1] / "ledger.jsonl") == []
    assert done.stdout.count("strategies, by their winners' mean score on validation") == 1
    assert "run 1 (seed=-1): ended early, 0 of 6 genomes; " in done.stdout  # with its reason
    page = (jobs[0].parent / "report.html").read_text()
    assert "2 of 3 runs have ended with a winner" in page
    assert "Run 1 (seed=-1): ended early, 0 of 6 genomes; " in page
    assert "Error: " in page


def test_submitit_on_this_machine(tmp_path: Path) -> None:
    launcher = ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=4")
    done, jobs = sweep_of(tmp_path, *launcher, "seed=1,2")
    assert done.returncode == 0, done.stderr
    assert [job.name for job in jobs] == ["0", "1"]
    first, second = ledgers_of(jobs, [1, 2])
    assert first != second
    assert done.stdout.count("strategies, by their winners' mean score on validation") == 1
