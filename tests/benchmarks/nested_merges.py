"""A genome of generation 3 as a tree of 13 merges beside one merge with their coefficients: memory and time.

    python -m tests.benchmarks.nested_merges [--hidden 768] [--layers 8] [--rank 16] [--genomes 3]

Makes a random Llama with three adapters of it, and the models that these make, in a temporary directory. A genome is
task_arithmetic of three recipes, each of which is that of three recipes of the three sources. It is merged into a live
model, in a process of its own for each way. `made` is the memory that merging has made (RssAnon, without the live model
and what else is there before the first genome), `seconds` are those of the processor; the first genome is not counted
in them. The table is in Markdown.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from evohydra.families import Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.collapsing import collapsed
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Group, Merge, Node
from tests.benchmarks.adapter_merges import CPU, SHOWN, sources
from tests.benchmarks.proc import status


def copies(opened: OpenSources, root: Path) -> OpenSources:
    """The models that adapters make, as checkpoints of their own."""
    for each in opened.models:
        model = AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.float32)
        for name, parameter in model.named_parameters():
            parameter.data.copy_(opened.tensors[each.name].read(name))
        model.save_pretrained(root / f"{each.name}-merged")
        for file in (root / "base").glob("tokenizer*"):
            (root / f"{each.name}-merged" / file.name).write_bytes(file.read_bytes())
    models = tuple(Checkpoint(each.name, str(root / f"{each.name}-merged")) for each in opened.models)
    return open_sources(models, Checkpoint("base", str(root / "base")), CausalLM(), Rules(allow_other_base=True))


def merge_of(models: Sequence[Node], opened: OpenSources, seed: int) -> Merge:
    """Task arithmetic with weights that follow from `seed`."""
    weight = tuple(0.1 * ((seed + 3 * number) % 7 + 1) for number in range(len(models)))
    return Merge(
        "task_arithmetic",
        opened.base,
        tuple(models),
        (Group("all", tuple(opened.tensors["base"].shapes), {"weight": weight}),),
    )


def third_generation(opened: OpenSources, genome: int) -> Merge:
    """A tree of 13 merges."""
    first = [merge_of(opened.models, opened, seed) for seed in range(3)]
    second = [merge_of(first, opened, 3 + seed) for seed in range(3)]
    return merge_of(second, opened, 6 + genome)


def measured(opened: OpenSources, one_merge: bool, genomes: int, told: Connection) -> None:
    """Merge genomes into a live model, and tell bytes made, seconds a genome, and one tensor of the last."""
    torch.set_num_threads(1)
    live = CausalLM().live_model(opened.directories["base"], CPU, torch.float32, opened.overlay)
    for parameter in live.parameters.values():
        parameter.mul_(1)  # the model's own memory, which is mapped until it is written to
    engine = Engine(opened.tensors, device=CPU, dtype=torch.float32)
    before, seconds = status(os.getpid())["RssAnon"], 0.0
    for genome in range(genomes + 1):
        start = time.process_time()
        tree = third_generation(opened, genome)
        live.become(collapsed(tree) if one_merge else tree, engine)
        seconds += time.process_time() - start if genome else 0.0
    made = status(os.getpid())["RssAnon"] - before
    told.send((made, seconds / genomes, live.parameters[SHOWN].numpy()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("hidden", 768), ("layers", 8), ("rank", 16), ("genomes", 3)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    given = parser.parse_args()
    given.adapters = 3
    with tempfile.TemporaryDirectory() as room:
        adapters = sources(Path(room), given)
        size = (Path(room) / "base" / "model.safetensors").stat().st_size
        print(f"base of {size / 2**20:.0f} MiB, three sources\n")
        print("| sources | a genome of generation 3 | memory made, MiB | s a genome |\n|---|---|---|---|")
        for kind, opened in (("models", copies(adapters, Path(room))), ("adapters", adapters)):
            tensors = []
            for way, one_merge in (("13 merges", False), ("one merge", True)):
                here, there = multiprocessing.Pipe()
                process = multiprocessing.get_context("fork").Process(
                    target=measured, args=(opened, one_merge, given.genomes, there)
                )
                process.start()
                made, seconds, tensor = here.recv()
                process.join()
                tensors.append(tensor)
                print(f"| {kind} | {way} | {made / 2**20:.0f} | {seconds:.2f} |", flush=True)
            print(f"largest difference of a tensor: {abs(tensors[0] - tensors[1]).max():.1e}", flush=True)


if __name__ == "__main__":
    main()
