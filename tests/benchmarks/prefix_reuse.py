"""A generation of paths with and without keeping what they share: layer-tokens in forward passes, and seconds.

    python -m tests.benchmarks.prefix_reuse [--threads 1] [--megabytes 256] [--genomes 16] [--device cpu]

The genomes are drawn as the paper's first generation is: the slots of A's layers, in the first repetition, are two
standard deviations towards "taken", all others are taken or skipped by the toss of a coin. There are no scales.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.merging.checkpoints import CheckpointReader
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Hop, LayerNames, Stack
from tests import tiny_models

LAYERS, REPETITIONS = 8, 3
SHAPE = {
    "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 256,
}  # fmt: skip
BATCHES, BATCH, PROMPT, NEW_TOKENS = 4, 8, 64, 16


def generation(layout: LayerNames, genomes: int) -> list[Stack]:
    """Paths through two models; A's first and last layers begin and end each."""
    generator = np.random.default_rng(0)
    slots = [(slot // LAYERS % 2, slot % LAYERS) for slot in range(2 * LAYERS * REPETITIONS)]
    mean = np.where(np.arange(len(slots)) < LAYERS, 2.0, 0.0)
    paths = []
    for _ in range(genomes):
        taken = generator.normal(mean) > 0
        inner = [slot for slot, on in zip(slots, taken, strict=True) if on]
        hops = [(0, 0), *inner, (0, LAYERS - 1)]
        paths.append(Stack((Checkpoint("a", "-"), Checkpoint("b", "-")), tuple(Hop(*hop) for hop in hops), layout))
    return paths


def log_likelihood(live: LiveCausalLM, prompts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Logits of each batch."""
    return [live.module(tokens, use_cache=False).logits for tokens in prompts]


def answers(live: LiveCausalLM, prompts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Greedy answers, all of the same length."""
    options = {"do_sample": False, "min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS}
    return [live.module.generate(input_ids=t, attention_mask=torch.ones_like(t), **options) for t in prompts]  # type: ignore[operator]


def main() -> None:
    """Measure both kinds of work."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--genomes", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    print("| work | kept | layer-tokens | of these run | seconds | most kept |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as root, torch.inference_mode():
        places = {name: tiny_models.save_model(Path(root) / name, seed, **SHAPE) for seed, name in enumerate("ab")}
        engine = Engine({name: CheckpointReader(path) for name, path in places.items()}, device=device)
        family = CausalLM()
        paths = generation(family.layout(places["a"]), options.genomes)
        prompts = [torch.randint(2, 40, (BATCH, PROMPT), device=device) for _ in range(BATCHES)]
        work: dict[str, Callable[[LiveCausalLM, Sequence[torch.Tensor]], list[torch.Tensor]]]
        work = {"log-likelihood": log_likelihood, "generation": answers}
        for what, run in work.items():
            found = []
            for megabytes in (0, options.megabytes):
                live = family.live_model(
                    places["a"], device, torch.float32, sources=places, prefix_bytes=megabytes * 10**6
                )
                live.become(paths[0], engine)
                run(live, prompts[:1])  # loads the second model and warms up
                prefixes = live.paths.prefixes
                prefixes.computed = prefixes.reused = most = 0
                results = []
                clock = time.process_time if device.type == "cpu" else time.perf_counter
                start = clock()
                live.expect(paths)
                for path in paths:
                    live.become(path, engine)
                    results += run(live, prompts)
                    most = max(most, prefixes.nbytes)
                seconds = clock() - start
                tokens = PROMPT + (NEW_TOKENS - 1 if run is answers else 0)
                total = sum(len(path.hops) for path in paths) * BATCH * BATCHES * tokens
                share = 100 * (1 - prefixes.reused / total)
                size = f"{most / 1e6:.1f} MB"
                print(f"| {what} | {megabytes} MB | {total} | {share:.1f} % | {seconds:.2f} | {size} |", flush=True)
                found.append(results)
            assert all(map(torch.equal, *found)), "answers differ"


if __name__ == "__main__":
    main()
