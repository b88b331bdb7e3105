"""Tiny random language models and an arithmetic benchmark on disk, for tests."""

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHARACTERS = ["<pad>", "<eos>", "\n", *"0123456789abcdefghijklmnopqrstuvwxyz +=?.答えは"]


def tokenizer(characters: list[str] = CHARACTERS) -> PreTrainedTokenizerFast:
    vocabulary = {character: index for index, character in enumerate(characters)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()  # no spaces between tokens
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")


def config(**changes: object) -> LlamaConfig:
    settings = {
        "vocab_size": len(CHARACTERS), "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
        "bos_token_id": None, "eos_token_id": 1, "tie_word_embeddings": False,
    }  # fmt: skip
    return LlamaConfig(**{**settings, **changes})


def save_model(
    directory: Path,
    seed: int,
    *,
    base: Path | None = None,
    step: float = 0.3,
    dtype: torch.dtype = torch.float32,
    characters: list[str] = CHARACTERS,
    **changes: object,
) -> Path:
    """A random Llama, or a random step away from the one in `base`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config(**changes)) if base is None else LlamaForCausalLM.from_pretrained(base)
    if base is not None:
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise * step * max(float(parameter.std()), 0.02))
    model.generation_config = transformers.GenerationConfig(pad_token_id=0, eos_token_id=1)
    model.to(dtype).save_pretrained(directory)
    tokenizer(characters).save_pretrained(directory)
    return directory


def save_trio(root: Path, **changes: object) -> tuple[Path, Path, Path]:
    """A base and two models that began as it."""
    base = save_model(root / "base", 0, **changes)
    return base, save_model(root / "one", 1, base=base), save_model(root / "two", 2, base=base)


def save_task(root: Path, examples: int = 60) -> Path:
    """A task directory for lm-eval: sums of two digits, as continuations to generate."""
    root.mkdir(parents=True, exist_ok=True)
    rows = [{"question": f"{i // 10}+{i % 10}={'?' * (i // 100)}", "answer": str(i % 10)} for i in range(examples)]
    (root / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "sums.yaml").write_text(
        """
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: sums.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], do_sample: false, max_gen_toks: 4}
process_results: !function scoring.share
metric_list:
  - {metric: closeness, aggregation: mean, higher_is_better: true}
  - {metric: exact, aggregation: mean, higher_is_better: true}
"""
    )
    (root / "scoring.py").write_text(
        """
import zlib

def share(doc, results):
    # A number that depends on every character of the answer.
    text = doc["question"] + results[0]
    return {"closeness": zlib.crc32(text.encode()) / 2**32, "exact": results[0] == doc["answer"]}
"""
    )
    return root


def save_lucky(task: Path) -> Path:
    """A second task beside that of `save_task`: about half of all answers are right, whatever they say."""
    (task / "lucky.yaml").write_text(
        """
task: lucky
dataset_path: json
dataset_kwargs: {data_files: {test: sums.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], do_sample: false, max_gen_toks: 4}
process_results: !function lucky.lucky
metric_list: [{metric: lucky, aggregation: mean, higher_is_better: true}]
"""
    )
    (task / "lucky.py").write_text(
        """
import zlib

def lucky(doc, results):
    return {"lucky": float(zlib.crc32((doc["question"] + results[0]).encode()) % 2)}
"""
    )
    return task


def overrides(root: Path, base: Path, one: Path, two: Path, task: Path) -> list[str]:
    """The command line of a run on these models."""
    return [
        "model=local_one+local_two",
        "optimizer=cmaes",
        f"hydra.searchpath=[file://{root / 'conf'}]",
        f"model.sources.one.path={one}",
        f"model.sources.two.path={two}",
        f"model.sources.one.base={base}",
        f"model.sources.two.base={base}",
        "benchmark=lm_eval",
        "benchmark.lm_eval.task=sums",
        f"benchmark.lm_eval.include_path={task}",
        "benchmark.lm_eval.metric=closeness",
        "tracker=none",
        "report=false",
        "threads=1",
    ]


def save_conf(root: Path) -> Path:
    """Two source files in a conf/ of one's own."""
    for name in ("one", "two"):
        save_source(root / "conf", f"local_{name}", name)
    return root


def save_source(conf: Path, file: str, name: str | None = None) -> None:
    """The file of a source in a conf/ of one's own; it is called as its file, or `name`."""
    (conf / "model").mkdir(parents=True, exist_ok=True)
    (conf / "model" / f"{file}.yaml").write_text(
        f"# @package model.sources.{name or file}\nfamily: evohydra.families.causal_lm.CausalLM\npath: ???\n"
        "revision: null\nadapter: null\ndtype: null\nbase: null\nlicence: null\n"
    )
