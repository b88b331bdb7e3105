"""Genomes scored as merged models beside genomes scored as adapters in place: genomes an hour, by the size of a task.

    python -m tests.benchmarks.adapters_in_place [--hidden 768] [--layers 8] [--rank 16] [--adapters 4]
    python -m tests.benchmarks.adapters_in_place --zoo

Three ways take turns in one process, genome by genome, over the same examples. `merged`: the live model becomes the
merge, as in a search. `in place`: the base stays as it is, and each adapted linear layer adds the product of a
genome's factors to its output. `PEFT`: the same by PEFT's own layers. A genome's time is that of making it and of
scoring its examples, by log-likelihood (texts of `--text` tokens in batches of 16) or by generation (`--answer` tokens
after prompts of `--prompt`). All is processor time of one thread, medians over `--genomes`. Below the table stands from
how few examples on merging pays: seconds that merging costs over seconds that the factors cost an example. The base is
a random Llama in float32, with `--zoo` the zoo's with its four LoRAs.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn

from evohydra.families import LiveModel, Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.engine import Engine
from evohydra.merging.low_rank import LowRank
from evohydra.recipe import Checkpoint, Group, Merge
from tests.benchmarks.adapter_merges import sources

CPU = torch.device("cpu")
BATCH = 16
WAYS = ("merged", "in place", "PEFT")
ZOO = ("tiny_lora_plus", "tiny_lora_carry", "tiny_lora_minus", "tiny_lora_ja")


class Added(nn.Module):
    """A linear layer, and beside it a product of factors: x -> W x + up (down x)."""

    def __init__(self, layer: nn.Module, change: LowRank) -> None:
        super().__init__()
        self.layer, self.up, self.down = layer, change.up.T.contiguous(), change.down.T.contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        whole = self.layer(x)
        low = x.flatten(0, -2) @ self.down
        added: Tensor = torch.addmm(whole.flatten(0, -2), low, self.up).view_as(whole)
        return added


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


def changes(genome: Merge, engine: Engine) -> Mapping[str, LowRank]:
    """What a genome adds, by the names of modules."""
    found = {}
    for name in engine.shapes(genome):
        change = engine.adapters.change(genome, name, genome.groups[0])
        if change is not None and change[1] is not None:
            found[name.removesuffix(".weight")] = change[1]
    return found


def in_place(module: Any, first: Mapping[str, LowRank]) -> Callable[[Mapping[str, LowRank]], None]:
    """Put factors on the layers of `module`; returns what puts those of another genome in their place."""
    for name, change in first.items():
        module.set_submodule(name, Added(module.get_submodule(name), change))

    def put(given: Mapping[str, LowRank]) -> None:
        for name, change in given.items():
            module.get_submodule(name).up.copy_(change.up.T)

    return put


def by_peft(module: Any, first: Mapping[str, LowRank]) -> tuple[Any, Callable[[Mapping[str, LowRank]], None]]:
    """The same with PEFT's layers: the module that they are in, and what changes the genome."""
    ranks = {name.replace(".", r"\."): change.rank for name, change in first.items()}
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=1, lora_alpha=1, rank_pattern=ranks, alpha_pattern=ranks, target_modules=[*first]
    )
    model = peft.get_peft_model(module, config).eval().requires_grad_(False)

    def put(given: Mapping[str, LowRank]) -> None:
        for name, change in given.items():
            layer = model.base_model.model.get_submodule(name)
            layer.lora_A["default"].weight.copy_(change.down)
            layer.lora_B["default"].weight.copy_(change.up)

    return model, put


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
    merged, base, twin = live(opened), live(opened), live(opened)
    put = in_place(base.module, changes(genomes[0], engine))
    of_peft, put_peft = by_peft(twin.module, changes(genomes[0], engine))
    makes: dict[str, tuple[Any, Callable[[Merge], None]]] = {
        "merged": (merged.module, lambda genome: merged.become(genome, engine)),
        "in place": (base.module, lambda genome: put(changes(genome, engine))),
        "PEFT": (of_peft, lambda genome: put_peft(changes(genome, engine))),
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
            saved = seconds["merged"][0] - seconds["in place"][0]
            more = seconds["in place"][1] - seconds["merged"][1]
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
