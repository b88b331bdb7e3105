"""Merging adapters as adapters beside merging copies: memory and time of a genome, and the adapter's logits.

    python -m tests.benchmarks.adapter_merges [--hidden 768] [--layers 8] [--rank 16] [--adapters 4] [--genomes 3]

Makes a random Llama and adapters of it in a temporary directory. Each way merges `--genomes` genomes of
task_arithmetic into a live model, in a process of its own. `made` is the memory that merging has made (RssAnon, without
the live model and what else is there before the first genome); the first genome is not counted in the time. Tables are
in Markdown.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from evohydra.families import Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Group, Merge
from tests.benchmarks.proc import status
from tests.test_adapter_merges import save_adapter
from tests.tiny_models import tokenizer

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SHOWN = "model.layers.0.mlp.up_proj.weight"
CPU = torch.device("cpu")


def sources(root: Path, given: argparse.Namespace) -> OpenSources:
    """A base and its adapters, as files in `root`."""
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=given.hidden,
        intermediate_size=3 * given.hidden,
        num_hidden_layers=given.layers,
        num_attention_heads=given.hidden // 64,
        num_key_value_heads=given.hidden // 64,
        tie_word_embeddings=False,
    )
    base = LlamaForCausalLM(config)
    base.save_pretrained(root / "base")
    tokenizer().save_pretrained(root / "base")
    settings = {"target_modules": TARGETS, "r": given.rank, "lora_alpha": given.rank}
    names = [f"adapter{number}" for number in range(given.adapters)]
    for seed, name in enumerate(names):
        save_adapter(base, settings, root / name, seed)
    models = tuple(Checkpoint(name, str(root / "base"), adapter=str(root / name)) for name in names)
    found = Checkpoint("base", str(root / "base"))
    return open_sources(models, found, CausalLM(), Rules(allow_other_base=True))


def measured(opened: OpenSources, by_factors: bool, genomes: int, told: Connection) -> None:
    """Merge genomes into a live model, and tell bytes made, seconds a genome, and one tensor of the last."""
    torch.set_num_threads(1)
    live = CausalLM().live_model(opened.directories["base"], CPU, torch.float32, opened.overlay)
    for parameter in live.parameters.values():
        parameter.mul_(1)  # the model's own memory, which is mapped until it is written to
    engine = Engine(opened.tensors, device=CPU, dtype=torch.float32, by_factors=by_factors)
    before, names, seconds = status(os.getpid())["RssAnon"], tuple(opened.tensors["base"].shapes), 0.0
    for genome in range(genomes):
        weight = tuple(0.1 * (number + genome) for number in range(len(opened.models)))
        group = Group("all", names, {"weight": weight})
        start = time.perf_counter()
        live.become(Merge("task_arithmetic", opened.base, opened.models, (group,)), engine)
        seconds += time.perf_counter() - start if genome else 0.0
    made = status(os.getpid())["RssAnon"] - before
    told.send((made, seconds / max(1, genomes - 1), live.parameters[SHOWN].numpy()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("hidden", 768), ("layers", 8), ("rank", 16), ("adapters", 4), ("genomes", 3)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        opened = sources(Path(room), given)
        size = (Path(room) / "base" / "model.safetensors").stat().st_size
        print(f"base of {size / 2**20:.0f} MiB, {given.adapters} adapters of rank {given.rank}\n")
        print("| merged | made, MiB | s a genome |\n|---|---|---|")
        tensors = []
        for way, by_factors in (("as copies", False), ("as adapters", True)):
            here, there = multiprocessing.Pipe()
            process = multiprocessing.get_context("fork").Process(
                target=measured, args=(opened, by_factors, given.genomes, there)
            )
            process.start()
            made, seconds, tensor = here.recv()
            process.join()
            tensors.append(tensor)
            print(f"| {way} | {made / 2**20:.0f} | {seconds:.2f} |")
        print(f"\nlargest difference of a tensor: {abs(tensors[0] - tensors[1]).max():.1e}")


if __name__ == "__main__":
    main()
