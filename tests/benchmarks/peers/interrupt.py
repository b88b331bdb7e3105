"""What a genome takes, and what a kill costs: start a row, kill -9 all of it in mid-search, start it again.

    python -m tests.benchmarks.peers.interrupt [ROW ...] [--genomes 15] [--out DIRECTORY]

Prints for each row the seconds of a genome by part (means up to the kill; wall time, which other work on the machine
stretches, and CPU time, which it does not), what the kill left on disk, and how the same command went on.
"""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.peers.compare import json_lines
from tests.benchmarks.peers.rows import ROWS, python_of, start

SEED, WARM, POLL = 1, 3, 0.02  # the first genomes fill caches
AGAIN = 5  # genomes after the second start that tell whether it went on


def cpu(process: psutil.Process) -> float:
    """CPU seconds of a process and of what it started."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        times = each.cpu_times()
        total += times.user + times.system
    return total


def until(process: "subprocess.Popen[bytes]", file: Path, genomes: int) -> tuple[float, float]:
    """Wait for so many genomes in `file`; the time and the CPU seconds of all processes at that moment."""
    while not file.is_file() or file.read_bytes().count(b"\n") < genomes:
        if process.poll() is not None:
            raise RuntimeError(f"the search ended before genome {genomes}; see output.txt beside {file}")
        time.sleep(POLL)
    return time.monotonic(), cpu(psutil.Process(process.pid))


def kill(process: "subprocess.Popen[bytes]") -> None:
    """kill -9, for the whole group."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def interrupt(name: str, genomes: int, out: Path) -> dict[str, Any]:
    """A search killed after `genomes` genomes, and started again with the same command."""
    directory = out / f"killed-{name}"
    shutil.rmtree(directory, ignore_errors=True)
    python = python_of(ROWS[name].environment, out)
    began = time.monotonic()
    process = start(name, SEED, directory, python, faster=False)
    file = directory / "record.jsonl" if ROWS[name].environment else directory / "run" / "ledger.jsonl"
    first, first_cpu = until(process, file, WARM)
    last, last_cpu = until(process, file, genomes)
    kill(process)
    before = json_lines(file)
    left = sorted(str(each.relative_to(directory)) for each in directory.rglob("*") if each.is_file())
    process = start(name, SEED, directory, python, faster=False)
    until(process, file, len(before) + AGAIN)
    kill(process)
    after = json_lines(file)
    again = [one["scores"] == other["scores"] for one, other in zip(before, after[len(before) :], strict=False)]
    parts = [_parts(line) for line in before[WARM:genomes]]
    means = {part: statistics.mean(each[part] for each in parts) for part in parts[0]}
    count = genomes - WARM
    whole = {"genome": (last - first) / count, "cpu": (last_cpu - first_cpu) / count}
    return {
        "row": name,
        **means,
        **whole,
        "overhead": whole["genome"] - sum(means.values()),
        "started": first - began - WARM * whole["genome"],
        "genomes": len(before),
        "repeated": sum(again),
        "left": left,
    }


def _parts(line: dict[str, Any]) -> dict[str, float]:
    """Seconds of a genome: to merge, and to evaluate (reading the merge from disk included)."""
    if "seconds" in line:  # evohydra's
        return {part: line["seconds"][part] for part in ("merge", "evaluate")}
    return {"merge": line["merge"], "evaluate": line.get("their_load", 0.0) + line["load"] + line["evaluate"]}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="What a genome takes with each peer, and what a kill costs.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which of {', '.join(ROWS)} (default: all)")
    parser.add_argument("--genomes", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("outputs/peers"))
    arguments = parser.parse_args()
    print("| | start | merge | evaluate | overhead | genome | CPU | evaluated again |")
    print("|---|---|---|---|---|---|---|---|")
    kept = {}
    for name in arguments.rows or ROWS:
        found = interrupt(name, arguments.genomes, arguments.out.resolve())
        seconds = (found[part] for part in ("merge", "evaluate", "overhead", "genome", "cpu"))
        times = " | ".join(f"{value:.3f} s" for value in seconds)
        again = f"{found['repeated']} of the first {AGAIN}"
        print(f"| {ROWS[name].label} | {found['started']:.0f} s | {times} | {again} |", flush=True)
        kept[name] = found["left"]
    for name, left in kept.items():
        print(f"{name} left: {', '.join(left)}")


if __name__ == "__main__":
    main()
