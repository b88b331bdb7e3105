"""Genomes of adapters in vLLM: several at once as LoRA requests, against one after the other, merged in place.

    PYTHON -m tests.benchmarks.lora_requests [--shape 135M] [--adapters 4] [--rank 16] [--genomes 8] [--texts 64]
                                             [--together 4] [--prompt 16] [--tokens 16] [--dtype bfloat16]

PYTHON has vLLM (docs/backends.md). A random Llama and random adapters of all its linear layers are made in a temporary
directory; a genome is a weight for each adapter. Merged, as with backend.genomes=merged: the merge inside vLLM's
worker, then its texts. As requests, as with backend.genomes=adapters: the texts of `--together` genomes are one batch.
Both write the same number of tokens, at most 64 texts at once. Seconds are those of the processor, since the machine
may be shared. Each way has a round before that does not count.
"""

import argparse
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from evohydra.families import Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.genome_adapters import parted, sum_of
from evohydra.families.sources import OpenSources, open_sources
from evohydra.families.vllm_adapters import Adapters
from evohydra.families.vllm_engine import VLLMEngine
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Group, Merge
from tests.benchmarks.throughput import SHAPES
from tests.commands import REPOSITORY

SEQUENCES, CACHE_GB, CONTEXT = 64, 1.0, 512
SIZE = 0.1  # of an adapter's change beside the weight, as Frobenius norms
Genome = tuple[float, ...]


@dataclass(frozen=True)
class Way:
    """Seconds of the processor for each genome: to become it (or to write its adapter), and its answers in tokens."""

    becoming: float
    answering: float
    answers: list[list[tuple[int, ...]]]

    def row(self, label: str) -> str:
        """A line of the table."""
        whole = self.becoming + self.answering
        return f"| {label} | {self.becoming:.2f} | {self.answering:.2f} | {3600 / whole:.0f} |"


def save_models(root: Path, shape: str, adapters: int, rank: int, dtype: torch.dtype) -> OpenSources:
    """A random base and random adapters of it below `root`."""
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[shape], tie_word_embeddings=False, bos_token_id=None, eos_token_id=1)
    base = LlamaForCausalLM(config).to(dtype)
    base.save_pretrained(root / "base")
    for file in (REPOSITORY / "evohydra" / "zoo" / "base").glob("tokenizer*"):
        shutil.copyfile(file, root / "base" / file.name)
    names = [f"adapter{number}" for number in range(adapters)]
    for name in names:
        tensors = {}
        for module, layer in base.named_modules():
            if isinstance(layer, torch.nn.Linear) and module != "lm_head":
                one, other = torch.randn(rank, layer.in_features), torch.randn(layer.out_features, rank)
                other *= SIZE * layer.weight.float().norm() / (other @ one).norm()
                prefix = f"base_model.model.{module}"
                tensors |= {f"{prefix}.lora_A.weight": one.to(dtype), f"{prefix}.lora_B.weight": other.to(dtype)}
        write_adapter(root / name, tensors, rank)
    models = tuple(Checkpoint(name, str(root / "base"), adapter=str(root / name)) for name in names)
    return open_sources(models, Checkpoint("base", str(root / "base")), CausalLM(), Rules(allow_other_base=True))


def write_adapter(directory: Path, tensors: dict[str, torch.Tensor], rank: int) -> None:
    """In PEFT's format, of scale 1."""
    directory.mkdir(parents=True, exist_ok=True)
    modules = sorted({name.split(".")[-3] for name in tensors})
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps({**settings, "target_modules": modules}))
    save_file(tensors, directory / "adapter_model.safetensors", {"format": "pt"})


def measured(
    opened: OpenSources,
    genomes: Sequence[Genome],
    prompts: Sequence[list[int]],
    tokens: int,
    dtype: torch.dtype,
    together: int | None,
) -> Way:
    """The texts of each genome: merged inside vLLM's worker, or as LoRA requests of `together` genomes at a time."""
    engine = Engine(opened.tensors, device=torch.device("cpu"), dtype=dtype)
    names = tuple(opened.tensors["base"].shapes)
    assert opened.base is not None
    changes, _ = parted(sum_of(opened.base, opened.models, engine), engine)
    modules = {name: name.removesuffix(".weight") for name in changes}
    rank = max(change.rank for change in changes.values())
    serving = VLLMEngine(
        Path(opened.base.path),
        names,
        {},
        dtype,
        on_cpu=True,
        context=CONTEXT,
        sequences=SEQUENCES,
        memory=0.6,
        cache_gb=CACHE_GB,
        adapters=Adapters(modules, rank, together) if together else None,
    )
    nodes = [
        Merge("task_arithmetic", opened.base, opened.models, (Group("all", names, {"weight": each}),))
        for each in genomes
    ]
    spent, answers = [], []
    warming = nodes[: together or 1]
    for number, node in enumerate([*warming, *nodes]):
        ahead = [*warming, *nodes][number + 1 :]
        moments = [time.process_time()]
        if together:
            serving.become_adapter(node, engine, ahead[: together - 1])
        else:
            serving.become(node, engine)
        moments.append(time.process_time())
        told = serving.answers(prompts, limit=tokens, stop=(), ends=(), penalty=1.0)
        moments.append(time.process_time())
        spent.append(np.diff(moments))
        answers.append([each.tokens for each in told])
    becoming, answering = np.mean(spent[len(warming) :], axis=0)
    return Way(float(becoming), float(answering), answers[len(warming) :])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Genomes of adapters in vLLM: as LoRA requests and in place.")
    parser.add_argument("--shape", choices=SHAPES, default="135M")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--together", type=int, nargs="+", default=[4])
    parser.add_argument("--adapters", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--genomes", type=int, default=8)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    dtype = getattr(torch, given.dtype)
    generator = np.random.default_rng(1)
    genomes: list[Genome] = [tuple(each) for each in generator.uniform(0, 1, (given.genomes, given.adapters)).tolist()]
    prompts = generator.integers(2, SHAPES[given.shape]["vocab_size"], (given.texts, given.prompt)).tolist()
    with tempfile.TemporaryDirectory() as room:
        opened = save_models(Path(room), given.shape, given.adapters, given.rank, dtype)
        ways = {"one after the other, merged": measured(opened, genomes, prompts, given.tokens, dtype, None)}
        for together in given.together:
            found = measured(opened, genomes, prompts, given.tokens, dtype, together)
            ways[f"{together} at once, LoRA requests"] = found
    print(vars(given))
    print("| genomes | to become, s | answers, s | genomes an hour of the processor |\n|---|---|---|---|")
    first = next(iter(ways.values()))
    for label, way in ways.items():
        print(way.row(label))
    for label, way in list(ways.items())[1:]:
        one, other = (list(itertools.chain.from_iterable(each.answers)) for each in (first, way))
        print(f"{label}: {sum(map(tuple.__eq__, one, other))} of {len(one)} answers as merged")


if __name__ == "__main__":
    main()
