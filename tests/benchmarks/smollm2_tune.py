"""LoRA fine-tunes of SmolLM2-135M-Instruct on one CPU core: the models that smollm2_search merges.

    pip install gguf peft
    python -m tests.benchmarks.smollm2_tune DATA DIRECTORY [--skills steps sums] [--gguf FILE]

writes DIRECTORY/base (bfloat16), adapters of rank 16 on all attention and MLP matrices (DIRECTORY/SKILL), and the
examples that are held out (DIRECTORY/data/SKILL.jsonl). See tests.benchmarks.smollm2_data for DATA.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from tests.benchmarks.smollm2 import Missing, convert, find_gguf
from tests.benchmarks.smollm2_data import SKILLS, Example, completion, prompt, write

RANK, RATE = 16, 1e-3
BATCH = {"steps": 4, "sums": 16, "jnli": 4}  # examples of a step
STEPS = {"steps": 120, "sums": 100, "jnli": 120}
MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Row = tuple[list[int], int]  # tokens of prompt and answer, and how many are the prompt's


def tokenized(tokenizer: Any, skill: str, examples: Sequence[Example]) -> list[Row]:
    """Tokens of every example."""
    rows = []
    for example in examples:
        asked = tokenizer(prompt(skill, example))["input_ids"]
        rows.append((asked + tokenizer(completion(skill, example))["input_ids"], len(asked)))
    return rows


def batches(rows: list[Row], steps: int, size: int, seed: int) -> Iterator[list[Row]]:
    """`steps` batches of `size` rows of like lengths; each row once before one comes again."""
    order = random.Random(seed)
    given = 0
    while True:
        shuffled = order.sample(rows, len(rows))
        blocks = [
            sorted(shuffled[at : at + 8 * size], key=lambda row: len(row[0])) for at in range(0, len(rows), 8 * size)
        ]
        epoch = [block[at : at + size] for block in blocks for at in range(0, len(block), size)]
        for batch in order.sample(epoch, len(epoch)):
            if given == steps:
                return
            given += 1
            yield batch


def loss(model: Any, batch: list[Row]) -> Tensor:
    """Mean cross-entropy of the answers' tokens."""
    longest = max(len(tokens) for tokens, _ in batch)
    ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens, _ in batch])
    answers = torch.tensor(
        [[asked <= at + 1 < len(tokens) for at in range(longest)] for tokens, asked in batch]
    )  # positions that say the next token of an answer
    hidden = model.get_base_model().model(ids, use_cache=False).last_hidden_state  # causal: the padding changes nothing
    logits = model.get_base_model().lm_head(hidden[answers])
    wanted = torch.cat([torch.tensor(tokens[asked:]) for tokens, asked in batch])
    return torch.nn.functional.cross_entropy(logits.float(), wanted)


def tune(base: Path, target: Path, skill: str, examples: Sequence[Example], steps: int) -> None:
    """Train an adapter and write it to `target`, with the loss on the way."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    original = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(original, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=MATRICES))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min(1.0, (done + 1) / 10) * max(0.05, 1 - done / steps)
    )
    start, recent = time.perf_counter(), []
    model.train()
    for done, batch in enumerate(batches(tokenized(tokenizer, skill, examples), steps, BATCH[skill], seed=0), start=1):
        value = loss(model, batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        recent.append(float(value.detach()))
        if done % 10 == 0:
            seconds = time.perf_counter() - start
            print(f"{skill}: step {done}, loss {sum(recent[-10:]) / 10:.3f}, {seconds:.0f} s", flush=True)
    model.save_pretrained(target)


def main() -> None:
    """Write the base, the adapters and the examples that are held out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="holds gsm8k/test.jsonl and jglue/jnli-valid-v1.3.json")
    parser.add_argument("directory", type=Path, help="where base, adapters and examples are written")
    parser.add_argument("--skills", nargs="+", default=["steps", "sums"], choices=list(SKILLS))
    parser.add_argument("--steps", type=int, help=f"default: {STEPS}")
    parser.add_argument("--gguf", type=Path, help="a GGUF file of a Llama, instead of the package's")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    base = arguments.directory / "base"
    try:
        if not base.exists():
            convert(arguments.gguf or find_gguf(arguments.directory), base)
    except Missing as missing:
        sys.exit(f"smollm2_tune: {missing}")
    for skill in arguments.skills:
        train, held = SKILLS[skill](arguments.data)
        print(f"{skill}: {len(train)} examples to train on, {len(held)} held out", flush=True)
        write(held, arguments.directory / "data" / f"{skill}.jsonl")
        tune(base, arguments.directory / skill, skill, train, arguments.steps or STEPS[skill])


if __name__ == "__main__":
    main()
