"""All that evohydra does on a GPU, checked on yours.

    python -m tests.gpu
    python -m tests.gpu --parts merge copies
    python -m tests.gpu --device cpu
    python -m tests.gpu --parts vllm --models 7B

It needs pip install -c constraints.txt -e '.[vision,diffusion,ray]', a few GB of the GPU and no network. The part vllm
runs in a Python with vLLM (docs/backends.md), and is left out in others. At its end it prints a table to paste into an
issue or into docs/scale.md; the figures are in gpu.json too. With --device cpu the same checks run on the CPU, which
shows that the script itself works.
"""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

import evohydra
from tests.benchmarks.served_both import SEVEN, ZOO
from tests.gpu import copies, merges, searches, served
from tests.gpu.findings import Finding, table

PARTS = ("merge", "copies", "search", "vllm")


def checks(
    device: torch.device, parts: list[str], shape: str, methods: list[str], models: str, others: int
) -> Iterator[Finding]:
    """The findings of the parts that are asked for, one after the other."""
    if "merge" in parts:
        yield from merges.checks(device, methods)
    if "copies" in parts:
        yield from copies.checks(device, shape)
    if "search" in parts:
        with tempfile.TemporaryDirectory() as root:
            yield from searches.checks(device.type, Path(root))
    if "vllm" in parts:
        with tempfile.TemporaryDirectory() as root:
            yield from served.checks(device.type, Path(root), models, others)


def machine(device: torch.device) -> dict[str, str]:
    """What was measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    versions = {"torch": torch.__version__, "python": platform.python_version(), "evohydra": evohydra.__version__}
    return {"device": name, **versions, **({"cuda": str(torch.version.cuda)} if device.type == "cuda" else {})}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Check what evohydra does on a GPU.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--shape", choices=list(copies.SHAPES), default=None, help="of the model that is copied")
    parser.add_argument("--models", choices=[ZOO, SEVEN], default=ZOO, help="that vLLM serves; 7B are 44 GB on disk")
    parser.add_argument("--others", type=int, default=20, help="genomes that vLLM serves before the first ones again")
    parser.add_argument("--methods", nargs="*", choices=merges.METHODS, default=list(merges.METHODS))
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("tests.gpu: torch finds no CUDA device here; --device cpu runs the same checks on the CPU")
    device = torch.device("cuda", 0) if given.device == "cuda" else torch.device("cpu")
    torch.set_num_threads(1)
    found = []
    shape = given.shape or ("110M" if given.device == "cuda" else "tiny")
    for each in checks(device, given.parts, shape, given.methods, given.models, given.others):
        found.append(each)
        print(
            f"{each.part}: {each.what}: {each.found}{' (NOT AS EXPECTED)' if each.passed is False else ''}", flush=True
        )
    facts = machine(device)
    given.json.write_text(json.dumps({"machine": facts, "findings": [asdict(each) for each in found]}, indent=1) + "\n")
    print("\n" + ", ".join(f"{key} {value}" for key, value in facts.items()) + "\n\n" + table(found))
    if wrong := [each for each in found if each.passed is False]:
        sys.exit(f"{len(wrong)} of {len(found)} checks are not as expected")


if __name__ == "__main__":
    main()
