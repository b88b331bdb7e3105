"""A path of n layers beside a plain model of n layers: prefill and cached decoding, in turn, in the same process.

    python -m tests.benchmarks.path_speed [--threads 1] [--rounds 30] [--device cpu]

The path alternates between two models, so that it has as many different weights as the plain model. Prints a table in
Markdown: seconds of the plain model, and how much longer the path takes (medians over rounds of paired runs).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evohydra.families.causal_lm import CausalLM
from evohydra.merging.checkpoints import CheckpointReader
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Hop, Stack
from tests import tiny_models


@dataclass(frozen=True)
class Shape:
    """Of a Llama, and of the prompts it is given."""

    hidden: int
    inner: int
    layers: int
    heads: int
    batch: int
    prompt: int
    new_tokens: int

    def config(self) -> dict[str, int]:
        """As keys of a configuration."""
        return {
            "hidden_size": self.hidden, "intermediate_size": self.inner, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.heads, "max_position_embeddings": 512,
        }  # fmt: skip


SHAPES = {"small": Shape(128, 352, 8, 4, 8, 64, 24), "medium": Shape(512, 1408, 12, 8, 4, 128, 16)}
SCALINGS = {"no scales": ("branch", 1.0), "branch": ("branch", 0.9), "stream": ("stream", 0.9)}


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def work(module: Any, shape: Shape) -> dict[str, Callable[[], object]]:
    """What is timed."""
    tokens = torch.randint(2, 40, (shape.batch, shape.prompt), device=module.device)
    options = {"do_sample": False, "min_new_tokens": shape.new_tokens, "max_new_tokens": shape.new_tokens}
    return {
        "prefill": lambda: module(input_ids=tokens, use_cache=True),
        "prefill + decoding": lambda: module.generate(input_ids=tokens, attention_mask=tokens.ne(0), **options),
    }


def measure(name: str, shape: Shape, device: torch.device, rounds: int, root: Path) -> None:
    """Print the lines of one shape."""
    paths = {each: tiny_models.save_model(root / f"{name}-{each}", n, **shape.config()) for n, each in enumerate("ab")}
    engine = Engine({each: CheckpointReader(path) for each, path in paths.items()}, device=device)
    family = CausalLM()
    plain = family.live_model(paths["a"], device, torch.float32)
    live = family.live_model(paths["a"], device, torch.float32, sources=paths)
    sources = tuple(Checkpoint(each, "-") for each in paths)
    for label, (scaling, scale) in SCALINGS.items():
        hops = tuple(Hop(layer % 2, layer, scale if layer else 1.0) for layer in range(shape.layers))
        live.become(Stack(sources, hops, family.layout(paths["a"]), scaling), engine)
        for what, run in work(plain.module, shape).items():
            other = work(live.module, shape)[what]
            pairs = [(seconds(run, device), seconds(other, device)) for _ in range(rounds + 3)][3:]
            ratio = statistics.median(path / model for model, path in pairs)
            base = statistics.median(model for model, _ in pairs)
            print(f"| {name} | {label} | {what} | {base * 1000:.1f} ms | {100 * (ratio - 1):+.1f} % |", flush=True)


def main() -> None:
    """Measure every shape."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| model | scales | work | plain model | path |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as root, torch.inference_mode():
        for name, shape in SHAPES.items():
            measure(name, shape, torch.device(options.device), options.rounds, Path(root))


if __name__ == "__main__":
    main()
