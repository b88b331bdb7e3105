"""What data flow and hybrids reach on the embedded example, beside parameter space, at the same number of genomes.

    python -m tests.benchmarks.dataflow OUT --jobs 2

makes the runs in OUT (an interrupted one goes on) and prints the tables of docs/dataflow.md.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SEEDS = (1, 2, 3)
MORE_SEEDS = (1, 2, 3, 4, 5)
PATH = ("merge.dataflow.repeats=1", "merge.dataflow.order=layers", "merge.dataflow.ends=false")


@dataclass(frozen=True)
class Strategy:
    """Command lines of a search: of one run, or of a first one whose winner is a source of the second."""

    name: str
    options: tuple[str, ...]
    budget: int = 204  # genomes in all
    first: tuple[str, ...] = ()


def path(scales: str, optimizer: str = "catcma", *more: str) -> tuple[str, ...]:
    """The command line of a search for paths."""
    return (f"merge={scales}", f"optimizer={optimizer}", *PATH, *more)


LONG = 408
PARAMETERS = Strategy("parameter space", ("merge=task_arithmetic", "optimizer=cmaes"), LONG)
FLOW = Strategy("data flow", path("dfs"), LONG)
JOINT = Strategy("hybrid, joint", path("task_arithmetic+dfs", "cmaes"), LONG)
SEQUENTIAL = Strategy("hybrid, one after the other", path("dfs_slot"), LONG, PARAMETERS.options)
SPACES = (PARAMETERS, FLOW, JOINT, SEQUENTIAL)
MATRIX, SLOT, NONE = (
    Strategy(f"scales: {label}", path(scales))
    for label, scales in (("matrix", "dfs"), ("slot", "dfs_slot"), ("none", "dfs_none"))
)
THRESHOLDS = Strategy("scales: slot, cmaes", path("dfs_slot", "cmaes"))


def carry_out(strategy: Strategy, seed: int, out: Path) -> dict[str, Any]:
    """The summary of a run with its tokens in all, made now unless it is there."""
    base = [sys.executable, "-m", "evohydra", "tracker=none", "threads=1", f"seed={seed}"]
    name = f"{strategy.name.replace(': ', '_').replace(', ', '_').replace(' ', '_')}-{seed}"
    budget, tokens = strategy.budget, 0
    options = [*strategy.options]
    if strategy.first:
        budget //= 2
        before = run([*base, *strategy.first, f"budget={budget}", f"run={name}-first"], out, f"{name}-first")
        tokens = before["tokens"]
        winner = out / "outputs" / f"{name}-first" / "winner"
        options += ["model=local+tiny_math", "benchmark=tiny_gsm_ja", f"model.sources.local.path={winner}"]
    summary = run([*base, *options, f"budget={budget}", f"run={name}"], out, name)
    return {**summary, "tokens": summary["tokens"] + tokens}


def run(command: Sequence[str], out: Path, name: str) -> dict[str, Any]:
    """One run below `out` to its end."""
    file = out / "outputs" / name / "summary.json"
    if not file.is_file():
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=out, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def row(name: str, summaries: Sequence[dict[str, Any]]) -> str:
    """Scores on test: of each seed, their mean with the 95 % interval of its examples, and tokens in millions."""
    scores = np.array([summary["test"]["winner"]["score"] for summary in summaries])
    widths = np.array([(s["test"]["winner"]["high"] - s["test"]["winner"]["low"]) / 2 for s in summaries])
    spread = scores.std(ddof=1)
    tokens = np.mean([summary["tokens"] for summary in summaries]) / 1e6
    each = ", ".join(f"{score:.3f}" for score in scores)
    return f"| {name} | {each} | {scores.mean():.3f} | {spread:.3f} | {widths.mean():.3f} | {tokens:.1f} |"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    wanted = {(strategy, seed): None for strategy in (*SPACES, NONE, SLOT, MATRIX) for seed in SEEDS}
    wanted |= {(strategy, seed): None for strategy in (SLOT, THRESHOLDS) for seed in MORE_SEEDS}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        summaries = dict(zip(wanted, pool.map(lambda key: carry_out(*key, out), wanted), strict=True))
    titles = ("search", "test score of each seed", "mean", "sd of seeds", "+- of one test", "tokens, millions")
    head = f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|"
    for title, strategies, seeds in (
        ("Spaces", SPACES, SEEDS),
        ("Scales", (NONE, SLOT, MATRIX), SEEDS),
        ("Optimizers on paths", (SLOT, THRESHOLDS), MORE_SEEDS),
    ):
        print(f"\n{title}\n\n{head}")
        for strategy in strategies:
            print(row(strategy.name, [summaries[strategy, seed] for seed in seeds]))


if __name__ == "__main__":
    main()
