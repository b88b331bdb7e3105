"""Three generations against one search, at equal numbers of genomes and of scored examples, on the embedded example.

    python -m tests.benchmarks.generations OUT --seeds 1 2 3 4 5
    python -m tests.benchmarks.generations OUT --seeds 1 2 3 4 5 --search default

makes the runs in OUT (an interrupted one goes on) and prints a table of docs/generations.md: of searches with CMA-ES on
all examples, or with the default (a Gaussian process and the likelihood of right answers).
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from evohydra.searching.lines_on_file import each_line

COMMON = {
    "cmaes": ("model=tiny_ja+tiny_math", "optimizer=cmaes", "fitness=full", "budget=204", "baselines=null"),
    "default": ("model=tiny_ja+tiny_math", "optimizer=bo", "fitness=likelihood", "budget=130", "baselines=null"),
}
THREE = ("generations=3", "generations_sources=3")
SEARCHES = {
    "one search": (),
    "three generations, best": (*THREE, "generations_keep=best"),
    "three generations, diverse": (*THREE, "generations_keep=diverse"),
    "three generations, niche": (*THREE, "generations_keep=niche"),
    "two generations: a merge, then paths": ("generations=2", 'generations_then=["merge=dfs_slot optimizer=catcma"]'),
}


def run(search: str, name: str, seed: int, out: Path) -> tuple[dict[str, Any], int, int]:
    """The summary of a run below `out`, made now unless it is there; its genomes, and the examples that they cost."""
    directory = out / "outputs" / f"{search}-{name.replace(' ', '_').replace(',', '').replace(':', '')}-{seed}"
    if not (directory / "summary.json").is_file():
        command = [
            sys.executable,
            "-m",
            "evohydra",
            *COMMON[search],
            *SEARCHES[name],
            f"seed={seed}",
            f"run={directory.name}",
        ]
        command += ["tracker=none", "threads=1", "report=false", "audit=none"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=out, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    lines = [line for file in sorted(directory.glob("**/ledger.jsonl")) for line in each_line(file)]
    return json.loads((directory / "summary.json").read_text()), len(lines), sum(line["scored"] for line in lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--search", choices=COMMON, default="cmaes")
    parser.add_argument("--only", nargs="+", choices=SEARCHES, default=[*SEARCHES])
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    print("| search | test score of each seed | mean | sd of seeds | genomes | examples scored | +- of one test |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.only:
        found = [run(arguments.search, name, seed, out) for seed in arguments.seeds]
        winners = [summary["test"]["winner"] for summary, _, _ in found]
        scores = np.array([winner["score"] for winner in winners])
        width = np.mean([(winner["high"] - winner["low"]) / 2 for winner in winners])
        spread = f"{scores.std(ddof=1):.3f}" if len(scores) > 1 else ""
        genomes, examples = (np.mean([each[at] for each in found]) for at in (1, 2))
        each = ", ".join(f"{score:.3f}" for score in scores)
        print(f"| {name} | {each} | {scores.mean():.3f} | {spread} | {genomes:.0f} | {examples:,.0f} | {width:.3f} |")


if __name__ == "__main__":
    main()
