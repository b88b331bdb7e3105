"""evohydra beside mergekit on large tensors, as a table:

    OMP_NUM_THREADS=1 python -m tests.reference.mergekit.parity --mergekit-python PYTHON [--markdown] [--method NAME]

PYTHON is that of an environment as install.sh makes it. Tensors of a million entries, fine-tunes of one base and
tensors that have nothing in common; a row is a method and a type, over all its parameters and both kinds of tensors.
Random methods are compared by what many merges of a small tensor keep, give on average, and spread.
"""

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.reference.mergekit.cases import (
    BATCHES,
    DETERMINISTIC,
    DTYPES,
    LARGE,
    RANDOM,
    RUNS,
    Settings,
    random_sources,
    tensors,
)
from tests.reference.mergekit.compare import WHAT_IS_KEPT, apart, merge, selected, statistics, trimmed, ulps

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def case(settings: Settings, index: int, **more: Any) -> dict[str, Any]:
    """The description of one merge, for both sides."""
    return {
        "method": settings.method,
        "parameters": settings.parameters,
        "first": settings.first,
        "inputs": settings.inputs(),
        "random": False,
        "seed": index,
        **more,
    }


def of_mergekit(
    python: str, cases: Sequence[dict[str, Any]], inputs: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """mergekit's merges by the index of the case, and what else is known of them."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        save_file(inputs, directory / "inputs.safetensors")
        (directory / "cases.json").write_text(json.dumps(cases))
        subprocess.run(
            [python, "-m", "tests.reference.mergekit.run_mergekit", str(directory)],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True,
        )  # fmt: skip
        outputs = {key: tensor.clone() for key, tensor in load_file(directory / "outputs.safetensors").items()}
        return outputs, json.loads((directory / "results.json").read_text())


def not_tied(entry: dict[str, Any], inputs: Sequence[Tensor]) -> Tensor:
    """The entries about which trimming and selection have no choice among equals."""
    if entry["method"] in WHAT_IS_KEPT:
        return ~torch.stack([tied for _, tied in trimmed(entry, inputs)]).any(0)
    if entry["method"] == "sce":
        return ~selected(entry, inputs)[1]
    return torch.ones_like(inputs[0], dtype=torch.bool)


def deterministic(python: str, methods: Sequence[str]) -> Iterator[list[str]]:
    """Rows of the first table."""
    cases = [case(settings, i) for i, settings in enumerate(DETERMINISTIC) if settings.method in methods]
    counts: dict[tuple[str, str], Tensor] = {}
    for seed, (kind, shape) in enumerate(LARGE.items()):
        made = tensors(kind, shape, 1000 + seed)
        for short, dtype in DTYPES.items():
            inputs = {name: tensor.to(dtype) for name, tensor in made.items()}
            outputs, results = of_mergekit(python, cases, inputs)
            for index, entry in enumerate(cases):
                given = [inputs[name] for name in entry["inputs"]]
                if str(index) not in outputs:
                    raise ValueError(f"mergekit has no result for {entry}: {results[index]}")
                expected, merged = outputs[str(index)].to(dtype), merge(entry, given)
                distance, sure = ulps(merged, expected), not_tied(entry, given)
                largest = int(apart(merged, expected, given)[sure].max())
                row = counts.setdefault((entry["method"], short), torch.zeros(5, dtype=torch.int64))
                row += torch.tensor(
                    [
                        distance.numel(),
                        int((distance == 0).sum()),
                        int((distance <= 1).sum()),
                        distance.numel() - int(sure.sum()),
                        0,
                    ]
                )
                row[4] = max(int(row[4]), largest)
    for (method, short), row in sorted(counts.items()):
        total, equal, near, tied, largest = row.tolist()
        yield [method, short, str(largest), *(f"{100 * share / total:.4f} %" for share in (equal, near, tied))]


def random(python: str, methods: Sequence[str]) -> Iterator[list[str]]:
    """Rows of the second table."""
    stored = {key.split("/")[1]: tensor for key, tensor in load_file(HERE / "random.safetensors").items()}
    drawn = random_sources(stored)
    chosen = [settings for settings in RANDOM if settings.method in methods]
    for short in DTYPES if chosen else ():
        cases = [case(settings, i, random=True, runs=RUNS) for i, settings in enumerate(chosen)]
        _, results = of_mergekit(python, cases, {name: drawn[short, name] for name in stored})
        for entry, result in zip(cases, results, strict=True):
            ours = statistics(entry, [drawn[short, name] for name in entry["inputs"]], RUNS)
            worst, cells = 0.0, []
            for name, theirs in result["statistics"].items():
                both = [torch.tensor(side[name]["mean"], dtype=torch.float64) for side in (result["statistics"], ours)]
                errors = [torch.tensor(side["error"], dtype=torch.float64) for side in (theirs, ours[name])]
                spread = (errors[0].square() + errors[1].square()).sqrt().clamp(min=1e-12)
                worst = max(worst, float(((both[0] - both[1]).abs() / spread).max()))
                cells += [f"{float(side.mean()):.5g}" for side in both]
            parameters = ", ".join(f"{key} {value}" for key, value in entry["parameters"].items() if key != "weight")
            yield [entry["method"], parameters, short, *cells, f"{worst:.1f}"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (head, *rows)]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], ["-" * width for width in widths], *lines[1:]))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Compare evohydra's merges with mergekit's.")
    parser.add_argument("--mergekit-python", required=True, help="the Python of an environment with mergekit")
    parser.add_argument("--markdown", action="store_true", help="tables in Markdown")
    parser.add_argument("--method", action="append", metavar="NAME", help="mergekit's name of a method; default all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    methods = arguments.method or [settings.method for settings in (*DETERMINISTIC, *RANDOM)]
    head = ["method", "type", "largest difference, ulp", "equal", "within 1 ulp", "tied at a cut"]
    if rows := list(deterministic(arguments.mergekit_python, methods)):
        print(table(head, rows, arguments.markdown))
        print(
            "\nThe largest difference leaves out entries that tie at a cut; two float32 units in the last place of the "
            "largest merged entry count as 1.\n"
        )
    sides = [f"{name}, {who}" for name in ("kept", "mean", "variance") for who in ("mergekit", "evohydra")]
    if rows := list(random(arguments.mergekit_python, methods)):
        print(table(["method", "parameters", "type", *sides, "largest difference, standard errors"], rows,
                    arguments.markdown))  # fmt: skip
        print(f"\n{RUNS} merges on each side; standard errors from {BATCHES} batches, of {3 * 8} numbers for each row.")


if __name__ == "__main__":
    main()
