"""The tiny searches of all families on the device, and one device that two workers of Ray share."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.commands import environment, json_lines
from tests.gpu.findings import Finding
from tests.kill_repeatedly import without_seconds

BUDGET = 8
# optimizer=random: the same genomes wherever they are scored.
FIXED = [
    f"budget={BUDGET}", "optimizer=random", f"optimizer.population={BUDGET}", "fitness=full", "top=1",
    "baselines=null", "tracker=none", "report=false", "threads=1",
]  # fmt: skip
FAMILIES = {
    "language model": [],
    "vision-language model": ["experiment=tiny_vlm"],
    "diffusion model": ["experiment=tiny_sdxl"],
}
HOOK = """
import atexit, json, os, torch
def told():
    if torch.cuda.is_initialized():
        with open(os.environ["PEAK_FILE"], "a") as file:
            file.write(json.dumps({"pid": os.getpid(), "peak": torch.cuda.max_memory_allocated()}) + "\\n")
atexit.register(told)
"""


def command(directory: Path, device: str, overrides: list[str]) -> tuple[int, str, int]:
    """A run in a directory: its exit code, its last words, and the most memory of the device that its process took."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    peaks = directory.parent / f"{directory.name}.peaks"
    code = HOOK + "import runpy; runpy.run_module('evohydra', run_name='__main__', alter_sys=True)"
    done = subprocess.run(
        [sys.executable, "-c", code, *overrides, *FIXED, f"device={device}", f"hydra.run.dir={directory}"],
        env=environment(PEAK_FILE=str(peaks)), capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    found = [json.loads(line)["peak"] for line in peaks.read_text().splitlines()] if peaks.exists() else []
    return done.returncode, (done.stderr or done.stdout).strip()[-300:].replace("\n", " "), max(found, default=0)


def alike(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> tuple[int, int]:
    """How many examples of the same genomes have the same score, of how many; ValueError for other genomes."""
    same = every = 0
    for here, there in zip(one, other, strict=True):
        if here["recipe"] != there["recipe"]:
            raise ValueError(f"genome {here['index']} is another one")
        for name, scores in here["scores"].items():
            every += len(scores)
            same += sum(a == b for a, b in zip(scores, there["scores"][name], strict=True))
    return same, every


def seconds(entries: list[dict[str, Any]]) -> dict[str, float]:
    """Of a genome, merging and all."""
    parts = ("merge", "evaluate")
    return {part: sum(entry["seconds"].get(part, 0.0) for entry in entries) / len(entries) for part in parts}


def family(name: str, device: str, root: Path) -> Iterator[Finding]:
    """Its search on the device, beside the same genomes on the CPU."""
    runs: dict[str, list[dict[str, Any]]] = {}
    peak = 0
    for where in dict.fromkeys((device, "cpu")):
        run = root / name.replace(" ", "-") / where
        code, words, taken = command(run, where, FAMILIES[name])
        if code != 0:
            yield Finding("search", f"{name} on {where}", "a run to its end", f"exit code {code}: {words}", False)
            return
        peak = max(peak, taken)
        runs[where] = json_lines(run / "ledger.jsonl")
    failed = sum(entry["error"] is not None for entry in runs[device])
    verified = not (root / name.replace(" ", "-") / device / "winner-unverified").exists()
    each = seconds(runs[device])
    yield Finding(
        "search", f"{name}: {BUDGET} genomes", "none fails, the winner is verified",
        f"{failed} failed, the winner is {'verified' if verified else 'not verified'}; {each['merge']:.3f} s merging "
        f"and {each['evaluate']:.2f} s scoring a genome, {peak / 1e6:.0f} MB of the device at most",
        failed == 0 and verified, {**each, "peak_bytes": peak},
    )  # fmt: skip
    same, every = alike(runs[device], runs["cpu"])
    yield Finding(
        "search", f"{name}: scores beside the CPU's", "no bits are promised",
        f"{same} of {every} examples have the same score", None, {"same": same, "examples": every},
    )  # fmt: skip


def shared(device: str, root: Path) -> Iterator[Finding]:
    """Two workers of Ray on one device against one process."""
    ray = ["executor=ray", "executor.workers=2", "executor.cpus_per_worker=1"]
    ray += ["executor.gpus_per_worker=0.5"] if device == "cuda" else []
    ledgers = []
    for name, overrides in {"alone": ["executor=local"], "shared": ray}.items():
        run = root / "one-device" / name
        code, words, _ = command(run, device, overrides)
        if code != 0:
            yield Finding("Ray", f"{name} on {device}", "a run to its end", f"exit code {code}: {words}", False)
            return
        ledgers.append([without_seconds(entry) for entry in json_lines(run / "ledger.jsonl")])
    turns = [json.loads(line) for line in (root / "one-device/shared/workers.jsonl").read_text().splitlines()]
    workers = {each["worker"] for each in turns if each.get("outcome") == "scored"}
    what = "two workers on one GPU (gpus_per_worker=0.5)" if device == "cuda" else "two workers on the CPU"
    yield Finding(
        "Ray", what, "the ledger of one process, bit for bit; both workers score",
        f"{'the same ledger' if ledgers[0] == ledgers[1] else 'another ledger'}; {len(workers)} workers scored",
        ledgers[0] == ledgers[1] and len(workers) == 2, {"workers": len(workers)},
    )  # fmt: skip


def checks(device: str, root: Path) -> Iterator[Finding]:
    """All families, then the shared device."""
    os.environ["MPLBACKEND"] = "Agg"
    for name in FAMILIES:
        yield from family(name, device, root)
    yield from shared(device, root)
