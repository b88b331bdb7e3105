"""One search over the zoo's four LoRAs, as adapters and as merged full checkpoints: time, memory, score by seed.

    python -m tests.benchmarks.adapter_search measure RESULTS.jsonl --seeds 1 2 3 4 5
    python -m tests.benchmarks.adapter_search table RESULTS.jsonl

Both are `experiment=tiny_loras` by the real command, with the same names, genes and seed. `adapters`: the sources are
the base with an adapter each, and the winner is an adapter. `copies`: each adapter was merged into a copy of the base
before (which takes no part of the time), and the winner is a checkpoint. `own memory` is the most that the process had
of its own at once (RssAnon, asked for every 50 ms), `peak` the most that was resident, with mapped files (VmHWM). What
is in RESULTS.jsonl is not run again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evohydra.families import Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.sources import open_sources
from evohydra.files.tensors import write_tensors
from evohydra.recipe import Checkpoint
from evohydra.searching.json_lines import whole_lines
from tests.benchmarks.proc import status
from tests.benchmarks.searches import ALWAYS, interval, lines_of
from tests.commands import environment

LORAS = ("tiny_lora_plus", "tiny_lora_carry", "tiny_lora_minus", "tiny_lora_ja")
WAYS = ("adapters", "copies")


def save_copies(root: Path) -> None:
    """The base with each adapter merged in, as plain checkpoints in `root`."""
    models = tuple(Checkpoint(name, "zoo://base", adapter=f"zoo://{name}") for name in LORAS)
    opened = open_sources(models, Checkpoint("base", "zoo://base"), CausalLM(), Rules())
    for name in LORAS:
        tensors = opened.tensors[name]
        CausalLM().copy_files(opened.directories[name], root / name, torch.float32)
        described = {each: (tensors.read(each).dtype, shape) for each, shape in sorted(tensors.shapes.items())}
        contents = ((each, tensors.read(each)) for each in described)
        write_tensors(root / name / "model.safetensors", described, contents)


def options(way: str, copies: Path) -> list[str]:
    """Of the command, beside the experiment and the seed."""
    if way == "adapters":
        return []
    moved = [f"model.sources.{name}.path={copies / name}" for name in LORAS]
    return ["format=plain", *moved, *(f"model.sources.{name}.adapter=null" for name in LORAS)]


def bytes_in(directory: Path) -> int:
    """The size of all files."""
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def carried_out(way: str, seed: int, more: Sequence[str], copies: Path, room: Path) -> dict[str, object]:
    """One run of the command: what it took, and what came out."""
    command = [sys.executable, "-m", "evohydra", "experiment=tiny_loras", *ALWAYS, *options(way, copies), *more]
    start, own = time.perf_counter(), 0
    with (room / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, f"seed={seed}", f"hydra.run.dir={room}/run"], env=environment(), stdout=log, stderr=log
        )
        peak = 0
        while True:
            ended, code, used = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            memory = status(process.pid)
            own, peak = max(own, memory.get("RssAnon", 0)), max(peak, memory.get("VmHWM", 0))
            time.sleep(0.05)
        process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise SystemExit((room / "log").read_text()[-2000:])
    summary = json.loads((room / "run" / "summary.json").read_text())
    records = list(whole_lines(room / "run" / "ledger.jsonl"))
    return {
        "test": summary["test"]["winner"]["score"],
        "validation": summary["validation"]["winner"]["score"],
        "genomes": summary["evaluations"],
        "examples": summary["examples_scored"],
        "wall": round(time.perf_counter() - start, 1),
        "cpu": round(used.ru_utime + used.ru_stime, 1),
        "merging": round(sum(record["seconds"].get("merge", 0.0) for record in records), 3),
        "own": own,
        "peak": peak,
        "written": bytes_in(room / "run" / "winner"),
    }


def measure(file: Path, seeds: Sequence[int], more: Sequence[str]) -> None:
    """Each way for each seed, a line for each; what is in the file is not done again."""
    with tempfile.TemporaryDirectory() as place:
        copies = Path(place)
        for name in LORAS:
            (copies / name).mkdir()
        save_copies(copies)
        for seed in seeds:
            for way in WAYS:
                key = {"way": way, "seed": seed, "options": list(more)}
                if any(key.items() <= line.items() for line in lines_of(file)):
                    continue
                with tempfile.TemporaryDirectory() as room:
                    line = {**key, **carried_out(way, seed, more, copies, Path(room))}
                with file.open("a") as lines:
                    lines.write(json.dumps(line) + "\n")
                print(
                    f"{way} seed {seed}: {line['test']:.3f}, {line['cpu']} s, {line['own'] / 2**20:.0f} MiB", flush=True
                )


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Both ways as markdown: means over seeds, and the test score of each seed."""
    shown = [
        "| sources | genomes | examples | merging | processor time | own memory | peak | winner on disk "
        "| test score, by seed | mean |",
        "|" + "---|" * 10,
    ]
    for way in WAYS:
        group = sorted((line for line in lines if line["way"] == way), key=lambda line: line["seed"])
        if not group:
            continue
        mean = {key: float(np.mean([line[key] for line in group])) for key in group[0] if key not in ("way", "options")}
        by_seed = " ".join(f"{line['test']:.3f}".lstrip("0") + f" ({line['seed']})" for line in group)
        shown.append(
            f"| {way} | {mean['genomes']:.0f} | {mean['examples']:,.0f} | {mean['merging']:.1f} s "
            f"| {mean['cpu']:.0f} s "
            f"| {mean['own'] / 2**20:.0f} MiB | {mean['peak'] / 2**20:.0f} MiB | {mean['written'] / 1000:,.0f} kB "
            f"| {by_seed} | {interval([line['test'] for line in group])} |"
        )
    return "\n".join(shown)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "table"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--more", nargs="+", default=[], metavar="OPTION", help="of the command, for both")
    given = parser.parse_args()
    if given.what == "measure":
        measure(given.file, given.seeds, given.more)
    print(table(lines_of(given.file)))


if __name__ == "__main__":
    main()
