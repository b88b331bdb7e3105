"""What one weight for a whole model reaches on the miniature of EvoSDXL-JP: `python -m tests.benchmarks.tiny_sdxl`.

For each grid the best weight is chosen on the test split itself, which favours these merges.
"""

import copy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

import evohydra
from evohydra.scoring.benchmarks.scorers.digits import digits
from evohydra.scoring.benchmarks.tiny_digits_ja import tiny_digits_ja
from evohydra.scoring.statistics import interval

ZOO = Path(evohydra.__file__).parent / "zoo"
SPLITS = {"search": {"start": 0, "stop": 160}, "validation": None, "test": {"start": 800, "stop": 1440}}
BEYOND = np.linspace(0.0, 2.0, 17)  # of base + weight x (source - base)
BETWEEN = np.linspace(0.0, 1.0, 17)
Weights = Mapping[str, Tensor]


@dataclass
class Live:
    """A pipeline as the benchmark takes it."""

    pipeline: Any

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def module(self) -> torch.nn.Module:
        return self.pipeline.unet


def load(name: str) -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline.from_pretrained(ZOO / name, local_files_only=True)


def blends(base: Weights, en: Weights, ja: Weights) -> Iterator[tuple[str, float, Weights]]:
    """The base, and blends by one weight for a whole model, or by two."""
    yield "digits_base", 0.0, base
    for name, source in (("tiny_digits_en", en), ("tiny_digits_ja", ja)):
        for weight in BEYOND:
            yield f"base + w ({name} - base)", weight, {k: base[k] + weight * (source[k] - base[k]) for k in base}
    for weight in BETWEEN:
        yield "(1 - w) tiny_digits_en + w tiny_digits_ja", weight, {k: torch.lerp(en[k], ja[k], weight) for k in base}
    for first in (0.75, 1.0, 1.25, 1.5):
        for weight in (0.75, 1.0, 1.25, 1.5):
            merged = {k: base[k] + first * (en[k] - base[k]) + weight * (ja[k] - base[k]) for k in base}
            yield f"base + {first} (tiny_digits_en - base) + w (tiny_digits_ja - base)", weight, merged


def main() -> None:
    torch.set_num_threads(1)
    split = sys.argv[1] if len(sys.argv) > 1 else "test"
    (benchmark,) = tiny_digits_ja(
        "tiny_digits_ja", scorers={"digits": digits}, splits=SPLITS, steps=4, guidance=0, batch_size=160
    ).values()
    live = Live(load("tiny_digits_ja"))
    sources = [
        {name: tensor.clone() for name, tensor in load(name).unet.state_dict().items()}
        for name in ("digits_base", "tiny_digits_en", "tiny_digits_ja")
    ]
    best: dict[str, tuple[float, float, list[float]]] = {}
    for name, weight, blend in blends(*sources):
        live.module.load_state_dict(copy.deepcopy(blend))
        scores = benchmark(live, split)
        best[name] = max(best.get(name, (-1.0, 0.0, [])), (float(scores.mean()), float(weight), scores.tolist()))
        print(f"{name}, {weight:.4g}: {scores.mean():.3f}", flush=True)
    for name, (score, weight, all_scores) in best.items():
        found = interval({"digits": all_scores})
        print(f"best of {name}: {score:.3f} ({found.low:.3f} to {found.high:.3f}) at {weight:.4g}")


if __name__ == "__main__":
    main()
