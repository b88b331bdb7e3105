"""Genomes an hour with several workers against one, on the embedded example, side by side on the same machine.

    python -m tests.benchmarks.workers --workers 2 --pairs 3 --executor ray
    python -m tests.benchmarks.workers --executor ray -- optimizer=cmaes fitness=full

Each run has one thread for each worker. The count goes from the end of the first generation to the end of the search;
what a run costs before its first genome is printed apart. The machine has to be quiet, with a core for each worker.
As many runs with one worker at the same time, added up, show what the machine itself can give: cores share its memory.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.commands import environment
from tests.kill_repeatedly import lines

POLL = 0.002  # seconds
GENERATION = 12


def timed(workers: int, budget: int, directory: Path, kind: str, overrides: list[str]) -> tuple[float, float]:
    """Genomes an hour, and the seconds before the first genome."""
    executor = ["executor=local"] if kind == "local" else [f"executor={kind}", f"executor.workers={workers}"]
    settings = [f"budget={budget}", "tracker=none", "report=false", "baselines=null", "top=1", "threads=1", *overrides]
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "evohydra", *executor, *settings, f"hydra.run.dir={directory}"],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    seen: dict[int, float] = {}
    while process.poll() is None and budget not in seen:
        seen.setdefault(lines(directory / "ledger.jsonl"), time.monotonic())
        time.sleep(POLL)
    if process.wait() != 0:
        sys.exit(f"the run with {workers} workers failed, see {directory}")
    start = min(at for count, at in seen.items() if count >= GENERATION)
    first = min(at for count, at in seen.items() if count >= 1)
    return 3600 * (budget - GENERATION) / (seen[budget] - start), first - began


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Genomes an hour of several workers against one.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--executor", choices=["processes", "ray"], default="processes")
    parser.add_argument("--budget", type=int, default=132)
    parser.add_argument("overrides", nargs="*", help="of all runs, after --: optimizer=cmaes fitness=full")
    given = parser.parse_args()
    more = given.overrides
    ratios = []
    with tempfile.TemporaryDirectory() as root:
        for pair in range(given.pairs):
            alone = "local" if given.executor == "processes" else given.executor
            one, before_one = timed(1, given.budget, Path(root) / f"{pair}-1", alone, more)
            several, before_several = timed(
                given.workers, given.budget, Path(root) / f"{pair}-several", given.executor, more
            )
            ratios.append(several / one)
            apart = [Path(root) / f"{pair}-apart-{number}" for number in range(given.workers)]
            with ThreadPoolExecutor() as pool:
                together = sum(
                    rate for rate, _ in pool.map(lambda room: timed(1, given.budget, room, "local", more), apart)
                )
            print(
                f"pair {pair + 1}: {one:.0f} genomes an hour with 1 worker (first after {before_one:.1f} s), "
                f"{several:.0f} with {given.workers} (first after {before_several:.1f} s), {ratios[-1]:.2f} times; "
                f"{given.workers} runs at once {together / one:.2f} times",
                flush=True,
            )
    print(f"median: {statistics.median(ratios):.2f} times")


if __name__ == "__main__":
    main()
