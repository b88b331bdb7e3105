"""The fixtures of the parity test, made by mergekit itself; in an environment as install.sh makes it, from the root:

    OMP_NUM_THREADS=1 DIR/bin/python -m tests.reference.mergekit.make_fixtures

cases.json has a line for each method, its parameters and kind of tensors. `inputs` are the tensors `kind/type/name` of
inputs.safetensors. A result has their shape and starts at `start` in the flat tensor `name/type` of
outputs.safetensors; `came_as` is the type in which mergekit gave it, where that is another one. `raises` is what
mergekit raised, `not_finite` how many of its entries are NaN or infinite. Where float32 sums are behind a result and
mergekit gives another one for the same numbers as float64, that starts at `double` in `name/fp64`, as float32. Of
random methods there are `statistics` over many merges of the tensors that `cases.random_sources` makes of
random.safetensors.
"""

import datetime
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.reference.mergekit.cases import (
    BATCHES,
    DETERMINISTIC,
    DTYPES,
    FROM_SUMS,
    MIDDLE,
    ODD,
    RANDOM,
    RANDOM_SHAPE,
    RUNS,
    SHAPES,
    Settings,
    dtypes,
    random_sources,
    sources,
)
from tests.reference.mergekit.run_mergekit import attempt, statistics

HERE = Path(__file__).parent
COMMAND = "OMP_NUM_THREADS=1 DIR/bin/python -m tests.reference.mergekit.make_fixtures"


def provenance(command: str) -> dict[str, str]:
    """What made a fixture."""
    return {
        "mergekit": importlib.metadata.version("mergekit"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, 1 thread",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": command,
    }


def case(settings: Settings, number: int, kind: str) -> dict[str, Any]:
    """The description of a merge, the same for all types."""
    return {
        "name": f"{settings.method}-{number}",
        "method": settings.method,
        "parameters": settings.parameters,
        "first": settings.first,
        "kind": kind,
        "inputs": list(settings.inputs()),
    }


def given(entry: dict[str, Any], short: str) -> dict[str, Any]:
    """The case in one type."""
    return {**entry, "inputs": [f"{entry['kind']}/{short}/{name}" for name in entry["inputs"]]}


def in_double(entry: dict[str, Any], inputs: dict[str, Tensor]) -> Tensor | None:
    """What mergekit gives for the same numbers as float64, rounded to float32 and flat; None where it gives nothing."""
    merged, _ = attempt(entry, {name: inputs[name].double() for name in entry["inputs"]})
    return None if merged is None else merged.reshape(-1).to(torch.float32)


def rounded(value: Any) -> Any:
    """Statistics to seven digits."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else float(f"{value:.7g}")


def main() -> None:
    """The command."""
    torch.set_num_threads(1)
    inputs: dict[str, Tensor] = {}
    for seed, (kind, shape) in enumerate({**SHAPES, **MIDDLE}.items()):
        for (short, name), tensor in sources(kind, shape, seed).items():
            inputs[f"{kind}/{short}/{name}"] = tensor.clone()

    outputs: dict[str, list[Tensor]] = {}
    cases: list[dict[str, Any]] = []
    used: set[str] = set()
    for number, settings in enumerate((*DETERMINISTIC, *ODD)):
        for kind in (*(settings.kinds or SHAPES), *(MIDDLE if settings.middle else ())):
            entry = case(settings, number, kind)
            results: dict[str, Any] = {}
            for short in dtypes(kind):
                merged, results[short] = attempt(given(entry, short), inputs)
                if merged is not None:
                    pieces = outputs.setdefault(f"{entry['name']}/{short}", [])
                    results[short] = {"start": sum(piece.numel() for piece in pieces)}
                    if merged.dtype != DTYPES[short]:
                        results[short]["came_as"] = str(merged.dtype)
                    pieces.append(merged.reshape(-1).to(DTYPES[short]))
                    if short == "fp32" and settings.method in FROM_SUMS:
                        exact = in_double(given(entry, short), inputs)
                        if exact is not None and not torch.equal(exact, pieces[-1]):
                            doubles = outputs.setdefault(f"{entry['name']}/fp64", [])
                            results[short]["double"] = sum(piece.numel() for piece in doubles)
                            doubles.append(exact)
                used.update(given(entry, short)["inputs"])
            cases.append({**entry, "results": results})

    generator = torch.Generator().manual_seed(100)
    stored = {
        name: (4096 * torch.randn(RANDOM_SHAPE, generator=generator)).round().clamp(-(2**15), 2**15 - 1).to(torch.int16)
        for name in ("base", "one", "two")
    }
    drawn = {f"random/{short}/{name}": tensor for (short, name), tensor in random_sources(stored).items()}
    for number, settings in enumerate(RANDOM):
        entry = {**case(settings, number, "random"), "runs": RUNS, "batches": BATCHES, "seed": number}
        results = {short: {"statistics": rounded(statistics(given(entry, short), drawn))} for short in DTYPES}
        cases.append({**entry, "results": results})

    save_file({name: inputs[name] for name in sorted(used)}, HERE / "inputs.safetensors")
    save_file({f"random/{name}": tensor for name, tensor in stored.items()}, HERE / "random.safetensors")
    save_file({name: torch.cat(pieces) for name, pieces in outputs.items()}, HERE / "outputs.safetensors")
    lines = ",\n".join(json.dumps(entry) for entry in cases)
    made = json.dumps(provenance(COMMAND))
    (HERE / "cases.json").write_text(f'{{"provenance": {made},\n"cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
