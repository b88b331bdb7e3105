"""A long search: seconds a genome and memory over its course, and how long it takes to go on.

    python -m tests.benchmarks.many_genomes --genomes 10000

Tiny models and examples, so that what grows with the number of genomes would show: ledger, scores, optimizer, display.
After the search the same command is given once more, which reads all that is on file and scores nothing.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.commands import environment, workspace
from tests.kill_repeatedly import lines

BLOCKS = 10
POLL = 0.2  # seconds


def megabytes(process: int) -> float:
    """The resident memory of a process; 0 where it has ended."""
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


def search(overrides: list[str], directory: Path, genomes: int) -> Iterator[tuple[int, float, float]]:
    """Carry the run out; after each tenth of it the genomes so far, seconds for each of the tenth, and memory in MB."""
    command = [sys.executable, "-m", "evohydra", *overrides, f"hydra.run.dir={directory}"]
    variables = {**os.environ, **environment()}
    with (directory.parent / "output.txt").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=variables)
    done, began, memory = 0, 0.0, 0.0
    while process.poll() is None:
        memory = megabytes(process.pid) or memory
        there = lines(directory / "ledger.jsonl")
        if there and not began:
            done, began = there, time.perf_counter()
        elif there - done >= genomes // BLOCKS or (there == genomes > done):
            now = time.perf_counter()
            yield there, (now - began) / (there - done), memory
            done, began = there, now
        time.sleep(POLL)
    if process.returncode != 0:
        raise RuntimeError((directory.parent / "output.txt").read_text()[-3000:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genomes", type=int, default=10_000)
    parser.add_argument("overrides", nargs="*", help="of the search, such as optimizer=de")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        directory = Path(root) / "runs" / "long"
        directory.parent.mkdir()
        given = [*workspace(Path(root)), f"budget={arguments.genomes}", "top=2", "baselines=null", "threads=1"]
        overrides = [*given, *arguments.overrides]
        print("genomes  ms each  memory MB")
        for there, seconds, memory in search(overrides, directory, arguments.genomes):
            print(f"{there:7d}  {1000 * seconds:7.1f}  {memory:9.0f}", flush=True)
        sizes = {name: (directory / name).stat().st_size / 1e6 for name in ("ledger.jsonl", "scores.jsonl")}
        before = time.perf_counter()
        list(search(overrides, directory, arguments.genomes))
        print(f"the same command again: {time.perf_counter() - before:.1f} s")
        print(", ".join(f"{name} {size:.1f} MB" for name, size in sizes.items()))


if __name__ == "__main__":
    main()
