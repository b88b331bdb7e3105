"""vLLM on the device beside transformers: the same answers, the same bits again, and what a genome costs."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evohydra.families.vllm_engine import is_installed
from tests.commands import environment
from tests.gpu.findings import Finding

ANSWERED = 64
NEAR = 0.25  # of two logits in 16 bits, between which engines may choose differently
EQUAL = 0.99  # of answers, at least


def findings(told: Mapping[str, Any], models: str, *, invariant: bool) -> Iterator[Finding]:
    """What tests.benchmarks.served_both has told. invariant: whether vLLM repeats bits here."""
    genomes, answers, apart = told["genomes"], told["answers"], told["that differ"]
    far = max((each["ours"] - each["theirs"] for each in apart), default=0.0)
    good = len(apart) <= (1 - EQUAL) * answers and far <= NEAR
    yield Finding(
        "vllm", f"{models}: answers beside those of transformers", f"{EQUAL:.0%} are equal, others are near-ties",
        f"{answers - len(apart)} of {answers} are equal; logits that differ are at most {far:.3g} apart; largest "
        f"difference of a log-likelihood per token {told['largest difference of a log-likelihood per token']:.2g}",
        good, {"answers": answers, "differ": len(apart), "far": far},
    )  # fmt: skip
    same, others = told["same bits after others"], told["others"]
    yield Finding(
        "vllm", f"{models}: the same genomes after {others} others", "equal bits" if invariant else "no bits promised",
        f"{same} of {genomes} have equal bits", same == genomes if invariant else None,
        {"same": same, "genomes": genomes},
    )  # fmt: skip
    costs = {f"{backend} {part}": s for backend, each in told["wall"].items() for part, s in each.items()}
    costs |= {"write to disk": told["disk"]["write"], "read from disk": told["disk"]["read"]}
    words = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in costs.items())
    yield Finding(
        "vllm", f"{models}: a genome on the clock", "no speed is promised",
        f"{words}; {told['gpu bytes'] / 1e9:.1f} GB of the device are taken", None,
        {**costs, "gpu_bytes": told["gpu bytes"]},
    )  # fmt: skip


def checks(device: str, root: Path, models: str, others: int) -> Iterator[Finding]:
    """On `models`: zoo, or 7B (random models of the shape that EvoLLM-JP has)."""
    if not is_installed():
        yield Finding("vllm", "backend=vllm", "a Python with vLLM", "this one has none: left out", None)
        return
    out = root / "served"
    arguments = [models, str(out), "--answered", str(ANSWERED), "--others", str(others), "--device", device]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.served_both", *arguments], env=environment(), capture_output=True,
        text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-300:].replace("\n", " ")
        yield Finding("vllm", models, "a measurement to its end", f"exit code {done.returncode}: {said}", False)
        return
    told = json.loads((out / "both.json").read_text())
    yield from findings(told, models, invariant=device == "cpu" or told["invariant"])
