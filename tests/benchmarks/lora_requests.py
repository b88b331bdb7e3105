"""Genomes of adapters in vLLM: several at once as LoRA requests, against one after the other, merged in place.

    PYTHON -m tests.benchmarks.lora_requests [--shape 135M] [--adapters 4] [--rank 16] [--genomes 8] [--texts 64]
                                             [--together 4] [--prompt 16] [--tokens 16] [--dtype bfloat16]

PYTHON has vLLM (docs/backends.md). A random Llama and random adapters of all its linear layers are made in a temporary
directory; a genome is a weight for each adapter. In place, as backend=vllm does it: the merge inside vLLM's worker,
then its texts. As requests: the genome's factors side by side, of the sum of the ranks, are an adapter on /dev/shm, and
the texts of `--together` genomes are one batch. Both write the same number of tokens, at most 64 texts at once. Seconds
are those of the processor, since the machine may be shared. Each way has a round before that does not count.
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
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from evohydra.families import Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.sources import OpenSources, open_sources
from evohydra.families.vllm_engine import VLLMEngine
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Group, Merge
from tests.benchmarks.throughput import SHAPES
from tests.commands import REPOSITORY

SEQUENCES, CACHE_GB, CONTEXT = 64, 1.0, 512
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes as max_lora_rank
SIZE = 0.1  # of an adapter's change beside the weight, as Frobenius norms
MEMORY = Path("/dev/shm")
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


def side_by_side(factors: Sequence[dict[str, torch.Tensor]], genome: Genome) -> dict[str, torch.Tensor]:
    """The adapter of a genome w: A is [A_1; ...; A_n], B is [w_1 B_1, ..., w_n B_n]."""
    found = {}
    for name in factors[0]:
        if "lora_A" in name:
            found[name] = torch.cat([each[name] for each in factors])
        else:
            parts = [weight * each[name] for weight, each in zip(genome, factors, strict=True)]
            found[name] = torch.cat(parts, dim=1)
    return found


def in_place(
    opened: OpenSources, genomes: Sequence[Genome], prompts: Sequence[list[int]], tokens: int, dtype: torch.dtype
) -> Way:
    """Each genome merged inside vLLM's worker, then its texts."""
    engine = Engine(opened.tensors, device=torch.device("cpu"), dtype=dtype)
    names = tuple(opened.tensors["base"].shapes)
    serving = VLLMEngine(
        Path(opened.base.path if opened.base else ""), names, {}, dtype, on_cpu=True, context=CONTEXT,
        sequences=SEQUENCES, memory=0.6, cache_gb=CACHE_GB,
    )  # fmt: skip
    spent, answers = [], []
    for genome in (genomes[0], *genomes):
        moments = [time.process_time()]
        group = Group("all", names, {"weight": genome})
        serving.become(Merge("task_arithmetic", opened.base, opened.models, (group,)), engine)
        moments.append(time.process_time())
        told = serving.answers(prompts, limit=tokens, stop=(), ends=(), penalty=1.0)
        moments.append(time.process_time())
        spent.append(np.diff(moments))
        answers.append([each.tokens for each in told])
    becoming, answering = np.mean(spent[1:], axis=0)
    return Way(float(becoming), float(answering), answers[1:])


def as_requests(
    opened: OpenSources, genomes: Sequence[Genome], prompts: Sequence[list[int]], tokens: int, dtype: torch.dtype,
    together: int,
) -> Way:  # fmt: skip
    """The texts of `together` genomes at a time, each genome an adapter."""
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    factors = [load_file(Path(str(each.adapter)) / "adapter_model.safetensors") for each in opened.models]
    rank = sum(next(each for name, each in one.items() if "lora_A" in name).shape[0] for one in factors)
    options: dict[str, Any] = {
        "dtype": str(dtype).removeprefix("torch."), "max_model_len": CONTEXT, "max_num_seqs": SEQUENCES,
        "enforce_eager": True, "kv_cache_memory_bytes": int(CACHE_GB * 1024**3), "disable_log_stats": True,
        "generation_config": "vllm", "enable_lora": True, "max_loras": together, "max_cpu_loras": together,
        "max_lora_rank": next(each for each in RANKS if each >= rank), "max_num_batched_tokens": 2048,
    }  # fmt: skip
    assert opened.base is not None
    llm = LLM(opened.base.path, **options)
    asked = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, skip_special_tokens=False)
    spent, answers, numbers = [], [], itertools.count(1)
    batches = [genomes[at : at + together] for at in range(0, len(genomes), together)]
    with tempfile.TemporaryDirectory(dir=MEMORY) as room:
        for batch in (batches[0], *batches):
            moments = [time.process_time()]
            requests = []
            for genome, number in zip(batch, numbers, strict=False):
                folder = Path(room) / f"genome{number}"
                write_adapter(folder, side_by_side(factors, genome), rank)
                requests.append(LoRARequest(folder.name, number, str(folder)))
            moments.append(time.process_time())
            given = [{"prompt_token_ids": prompt} for _ in batch for prompt in prompts]
            adapters = [request for request in requests for _ in prompts]
            told = llm.generate(given, asked, lora_request=adapters, use_tqdm=False)
            moments.append(time.process_time())
            spent.append(np.diff(moments) / len(batch))
            found = [tuple(each.outputs[0].token_ids) for each in told]
            answers.append([found[at : at + len(prompts)] for at in range(0, len(found), len(prompts))])
            for request in requests:
                llm.llm_engine.remove_lora(request.lora_int_id)
                shutil.rmtree(request.lora_path)
    becoming, answering = np.mean(spent[1:], axis=0)
    return Way(float(becoming), float(answering), [each for batch in answers[1:] for each in batch])


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
        ways = {"one after the other, in place": in_place(opened, genomes, prompts, given.tokens, dtype)}
        for together in given.together:
            found = as_requests(opened, genomes, prompts, given.tokens, dtype, together)
            ways[f"{together} at once, LoRA requests"] = found
    print(vars(given))
    print("| genomes | to become, s | answers, s | genomes an hour of the processor |\n|---|---|---|---|")
    first = next(iter(ways.values()))
    for label, way in ways.items():
        print(way.row(label))
    for label, way in list(ways.items())[1:]:
        one, other = (list(itertools.chain.from_iterable(each.answers)) for each in (first, way))
        print(f"{label}: {sum(map(tuple.__eq__, one, other))} of {len(one)} answers as in place")


if __name__ == "__main__":
    main()
