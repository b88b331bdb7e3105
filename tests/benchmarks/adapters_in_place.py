"""Genomes scored as merged models beside genomes scored as adapters in place: genomes an hour, by the size of a task.

    python -m tests.benchmarks.adapters_in_place [--hidden 768] [--layers 8] [--rank 16] [--adapters 4]
    python -m tests.benchmarks.adapters_in_place --zoo

Both ways of `backend.genomes` take turns in one process, genome by genome, over the same examples. `merged`: the live
model becomes the merge. `adapters`: the base stays as it is, and PEFT's layers add the products of a genome's factors.
A genome's time is that of making it and of scoring its examples, by log-likelihood (texts of `--text` tokens in batches
of 16) or by generation (`--answer` tokens after prompts of `--prompt`). All is processor time of one thread, medians
over `--genomes`. Below the table stands from how few examples on merging pays: seconds that merging costs over seconds
that the factors cost an example. The base is a random Llama in float32, with `--zoo` the zoo's with its four LoRAs.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evohydra.families import LiveModel, Rules
from evohydra.families.adapter_layers import LiveAdapters
from evohydra.families.causal_lm import CausalLM
from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Group, Merge
from tests.benchmarks.adapter_merges import sources

CPU = torch.device("cpu")
BATCH = 16
WAYS = ("merged", "adapters")
ZOO = ("tiny_lora_plus", "tiny_lora_carry", "tiny_lora_minus", "tiny_lora_ja")


def zoo() -> OpenSources:
    """The zoo's base and its LoRAs."""
    models = tuple(Checkpoint(name, "zoo://base", adapter=f"zoo://{name}") for name in ZOO)
    return open_sources(models, Checkpoint("base", "zoo://base"), CausalLM(), Rules(allow_other_base=True))


def live(opened: OpenSources) -> LiveModel:
    """The base in memory of its own."""
    model = CausalLM().live_model(opened.directories["base"], CPU, torch.float32, opened.overlay)
    for parameter in model.parameters.values():
        parameter.mul_(1)
    return model


@torch.inference_mode()
def read_texts(module: Any, texts: Tensor) -> Tensor:
    """The log-likelihoods of texts (n, length) -> (n,), in batches."""
    found = []
    for batch in texts.split(BATCH):
        words = module(input_ids=batch).logits[:, :-1].log_softmax(-1)
        found.append(words.gather(-1, batch[:, 1:, None]).sum((1, 2)))
    return torch.cat(found)


@torch.inference_mode()
def write_answers(module: Any, prompts: Tensor, length: int) -> None:
    """Answers of `length` tokens to prompts (n, length of a prompt), in batches."""
    for batch in prompts.split(BATCH):
        module.generate(
            input_ids=batch, attention_mask=torch.ones_like(batch), do_sample=False, min_new_tokens=length,
            max_new_tokens=length, pad_token_id=0,
        )  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("hidden", 768), ("layers", 8), ("rank", 16), ("adapters", 4), ("genomes", 3)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    for name, usual in (("text", 64), ("prompt", 32), ("answer", 24)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--examples", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--zoo", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as room:
        opened = zoo() if given.zoo else sources(Path(room), given)
        compared(opened, given)


def compared(opened: OpenSources, given: argparse.Namespace) -> None:
    """Measure the ways side by side, and print what came out."""
    engine = Engine(opened.tensors, device=CPU, dtype=torch.float32)
    names = tuple(opened.tensors["base"].shapes)
    weights = [tuple(0.1 * (number + genome) for number in range(len(opened.models))) for genome in range(8)]
    genomes = [
        Merge("task_arithmetic", opened.base, opened.models, (Group("all", names, {"weight": each}),))
        for each in weights
    ]
    assert opened.base is not None
    merged, beside = live(opened), LiveAdapters(live(opened), engine, opened.base, opened.models)
    makes: dict[str, tuple[Any, Callable[[Merge], None]]] = {
        "merged": (merged.module, lambda genome: merged.become(genome, engine)),
        "adapters": (beside.module, lambda genome: beside.become_adapter(genome, engine)),
    }
    generator = torch.Generator().manual_seed(0)
    vocabulary = merged.module.get_input_embeddings().num_embeddings  # type: ignore[operator]
    print("| task | examples | " + " | ".join(f"{way}: made + scored, s" for way in WAYS), end=" | ")
    print("genomes an hour: " + " / ".join(WAYS) + " |\n|" + "---|" * (3 + len(WAYS)))
    ends: dict[str, tuple[float, float, int]] = {}
    for task in ("log-likelihood", "generation"):
        for examples in given.examples:
            length = given.text if task == "log-likelihood" else given.prompt
            texts = torch.randint(3, vocabulary, (examples, length), generator=generator)
            ask = read_texts if task == "log-likelihood" else lambda m, t: write_answers(m, t, given.answer)
            seconds = turns(makes, genomes, lambda m, ask=ask, texts=texts: ask(m, texts), given.genomes)
            shown = " | ".join(f"{seconds[way][0]:.4f} + {seconds[way][1]:.3f}" for way in WAYS)
            hours = " / ".join(f"{3600 / sum(seconds[way]):,.0f}" for way in WAYS)
            print(f"| {task} | {examples} | {shown} | {hours} |", flush=True)
            saved = seconds["merged"][0] - seconds["adapters"][0]
            more = seconds["adapters"][1] - seconds["merged"][1]
            before = ends.get(task, (0.0, 0.0, 0))
            ends[task] = before[0] + saved / len(given.examples), before[1] + more, before[2] + examples
    print()
    for task, (saved, more, asked) in ends.items():
        each = more / asked
        from_on = f"{saved / each:.1f} examples" if each > 0 else "no number of examples"
        print(
            f"{task}: merging costs {saved:.4f} s more, factors {each:.5f} s an example; merging pays from {from_on} on"
        )
    texts = torch.randint(3, vocabulary, (4, given.text), generator=generator)
    for way in WAYS:
        makes[way][1](genomes[-1])
    likelihoods = [read_texts(makes[way][0], texts) for way in WAYS]
    apart = max(float((each / likelihoods[0] - 1).abs().max()) for each in likelihoods)
    print(f"largest relative difference of a log-likelihood: {apart:.1e}")


def turns(
    makes: Mapping[str, tuple[Any, Callable[[Merge], None]]],
    genomes: Sequence[Merge],
    score: Callable[[Any], object],
    count: int,
) -> dict[str, tuple[float, float]]:
    """For each way the median seconds of making a genome and of scoring it; a first genome warms up."""
    made: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number in range(count + 1):
        for way, (module, make) in makes.items():
            start = time.process_time()
            with torch.inference_mode():
                make(genomes[number % len(genomes)])
            between = time.process_time()
            score(module)
            if number:
                made[way].append((between - start, time.process_time() - between))
    return {way: (median([a for a, _ in each]), median([b for _, b in each])) for way, each in made.items()}


def median(values: Sequence[float]) -> float:
    """Of `values`, the upper one of an even number."""
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    main()
