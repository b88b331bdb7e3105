"""Predicted beside measured: python -m tests.benchmarks.plan [NAME ...] plans runs, carries them out, and compares.

Processor time is compared, for other work on the machine makes a run longer on the wall. Even so a busy machine makes
each second of the processor do less: plan and run are made one straight after the other, and what each had for company
is the load that is printed.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RUNS = {
    "zoo": [],
    "tiny_vlm": ["experiment=tiny_vlm"],
    "tiny_sdxl": ["experiment=tiny_sdxl"],
    "tiny_topics": ["experiment=tiny_topics"],
    "tiny_dfs": ["experiment=tiny_dfs"],
}
ONE = {"tracker": "none"}


def used(command: list[str], cwd: Path) -> tuple[float, int]:
    """Processor seconds and peak bytes of a command."""
    log = cwd / "log.txt"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=out)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command}: {log.read_text()[-2000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def compared(name: str, overrides: list[str]) -> str:
    """A row of the table."""
    given = [*overrides, *(f"{key}={value}" for key, value in ONE.items())]
    with tempfile.TemporaryDirectory() as room:
        cwd = Path(room)
        plan = [sys.executable, "-m", "evohydra.plan", "calibrate=true", "json=plan.json", *given]
        planning, _ = used(plan, cwd)
        load = os.getloadavg()[0]
        found: dict[str, Any] = json.loads((cwd / "plan.json").read_text())
        seconds, peak = used([sys.executable, "-m", "evohydra", *given, "run=measured"], cwd)
    expected = found["cost"]["processor_seconds"][0]["total"]
    memory = found["memory"]["driver"]["total"]
    return (
        f"| {name} | {expected['likely']:.0f} ({expected['low']:.0f} to {expected['high']:.0f}) | {seconds:.0f} | "
        f"{expected['likely'] / seconds - 1:+.0%} | {memory / 1e6:.0f} | {peak / 1e6:.0f} | {memory / peak - 1:+.0%} | "
        f"{planning:.0f} | {load:.1f}, {os.getloadavg()[0]:.1f} |"
    )


def main() -> None:
    print("| run | predicted s | measured s | difference | predicted MB | measured MB | difference | plan s | load |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in sys.argv[1:] or RUNS:
        if name in RUNS:
            print(compared(name, RUNS[name]), flush=True)
        else:
            label, _, given = name.partition("=")
            print(compared(label, given.split()), flush=True)


if __name__ == "__main__":
    main()
