"""mergekit on stored tensors: python -m tests.reference.mergekit.run_mergekit DIR, in an environment with mergekit.

DIR holds cases.json (a list of cases) and inputs.safetensors; outputs.safetensors and results.json are written there.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mergekit.merge_methods.api import merge_tensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.reference.mergekit.cases import BATCHES, RUNS, Statistics


def merge(case: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
    """mergekit's merge of a case."""
    inputs = [tensors[name].clone() for name in case["inputs"]]
    with torch.no_grad():
        return merge_tensors(
            inputs, case["method"], parameters=dict(case["parameters"]), base_index=0 if case["first"] else None
        )


def attempt(case: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Tensor | None, dict[str, str]]:
    """The merge, or what mergekit raised."""
    try:
        merged = merge(case, tensors).contiguous()
    except (ValueError, RuntimeError, IndexError, TypeError, ZeroDivisionError) as error:
        return None, {"raises": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
    if not merged.isfinite().all():
        return None, {"not_finite": f"{int((~merged.isfinite()).sum())} of {merged.numel()} entries"}
    return merged, {}


def statistics(case: Mapping[str, Any], tensors: Mapping[str, Tensor], runs: int = RUNS) -> dict[str, Any]:
    """Keep rate, mean and variance over many merges."""
    torch.manual_seed(case["seed"])
    base, one = (tensors[name] for name in case["inputs"][:2])
    dense = {**case, "parameters": {**case["parameters"], "density": 1.0}}
    collected = Statistics(base, one, merge(dense, tensors) - base)
    for _ in range(BATCHES):
        for _ in range(runs // BATCHES):
            collected.add(merge(case, tensors))
        collected.end_batch()
    return collected.result()


def main() -> None:
    """The command."""
    torch.set_num_threads(1)
    directory = Path(sys.argv[1])
    tensors = load_file(directory / "inputs.safetensors")
    outputs: dict[str, Tensor] = {}
    results: list[dict[str, Any]] = []
    for index, case in enumerate(json.loads((directory / "cases.json").read_text())):
        if case["random"]:
            results.append({"statistics": statistics(case, tensors, case["runs"])})
            continue
        merged, result = attempt(case, tensors)
        results.append(result)
        if merged is not None:
            outputs[str(index)] = merged
    save_file(outputs, directory / "outputs.safetensors")
    (directory / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
