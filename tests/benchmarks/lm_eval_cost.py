"""What scoring costs beside the model: a benchmark of lm-eval against a plain loop over tokenizer, generate and decode.

    python -m tests.benchmarks.lm_eval_cost [--examples 64] [--batch 16] [--shared 500] [--answer 32] [--rounds 3]
        [--width 384] [--layers 14]

The model is a random Llama, of 35 million parameters by default, whose tokens are characters. Prompts begin with
`--shared` characters that are the same for all, as few-shot examples are, and with none as in tasks without. Seconds
are those of the processor, the least of some rounds in turn; a round is what a genome costs, when tokens are known from
genomes before. Answers of the loop and of the benchmark are compared. Log-likelihoods are held against lm-eval's HFLM.
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.scoring.benchmarks.lm_eval import lm_eval_benchmarks
from evohydra.scoring.benchmarks.lm_eval_benchmark import LMEvalBenchmark
from evohydra.scoring.benchmarks.lm_eval_references import of_texts
from tests import tiny_models

VOCABULARY = 16384
SHOT = "0+1=1 and 2+3=5 so 7 is 3+4, "
Found = dict[str, tuple[float, object]]  # seconds and what came out, by way


def shape(width: int, layers: int) -> dict[str, int]:
    """Of a model with heads of 64 numbers, two of them for one of keys and values."""
    heads = max(1, width // 64)
    return {
        "hidden_size": width, "intermediate_size": 8 * width // 3, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": max(1, heads // 2), "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
    }  # fmt: skip


def task(root: Path, examples: int, shared: int) -> Path:
    """Sums behind the same beginning, whose lengths differ."""
    root.mkdir()
    tiny_models.save_task(root)
    begin = (SHOT * (1 + shared // len(SHOT)))[:shared]
    rows = [
        {"question": f"{begin}{'?' * (n * 7 % 41)}{n}+{n % 10}=", "answer": f"{n} and so on {n}"}
        for n in range(2 * examples)
    ]
    (root / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def benchmark(root: Path, examples: int, batch: int, answer: int, **options: Any) -> LMEvalBenchmark:
    """The benchmark over these sums."""
    return lm_eval_benchmarks(
        "sums",
        task="sums",
        metric="closeness",
        include_path=str(root),
        data_files=str(root / "sums.jsonl"),
        shuffle=None,
        batch_size=batch,
        generation_kwargs={"until": [], "max_gen_toks": answer},
        splits={"search": {"stop": examples}, "validation": None, "test": {"start": examples}},
        **options,
    )["sums"]


@torch.no_grad()
def loop(live: LiveCausalLM, prompts: Sequence[str], batch: int, answer: int) -> list[str]:
    """The answers by transformers alone: batches of similar lengths, padded on the left."""
    tokenizer: Any = live.tokenizer
    module: Any = live.module
    tokenizer.padding_side = "left"
    order = sorted(range(len(prompts)), key=lambda at: (-len(prompts[at]), prompts[at]))
    answers = {}
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        inputs = tokenizer([prompts[at] for at in places], padding=True, return_tensors="pt")
        tokens = module.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False,
            max_new_tokens=answer, pad_token_id=0,
        )  # fmt: skip
        texts = tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        answers |= dict(zip(places, texts, strict=True))
    return [answers[at] for at in range(len(prompts))]


def measured(ways: dict[str, Callable[[], object]], rounds: int) -> Found:
    """The least seconds of each way, in turn, after one round that counts for nothing."""
    found: dict[str, tuple[list[float], object]] = {}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.process_time()
            result = way()
            seconds = time.process_time() - start
            found[name] = ([*found[name][0], seconds] if number > 1 else [seconds], result)
    return {name: (min(seconds), result) for name, (seconds, result) in found.items()}


def rows(shared: int, what: str, found: Found) -> None:
    """Print the table's rows."""
    first = next(iter(found.values()))[0]
    for name, (seconds, _) in found.items():
        print(f"| {what}, {shared} shared | {name} | {seconds:.2f} | {seconds / first:.3f} |", flush=True)


def main() -> None:
    """Measure answers and log-likelihoods, with and without a shared beginning."""
    parser = argparse.ArgumentParser()
    for name, default in (
        ("examples", 64),
        ("batch", 16),
        ("shared", 500),
        ("answer", 32),
        ("rounds", 3),
        ("width", 384),
        ("layers", 14),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    print("| work | by | processor seconds | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        saved = tiny_models.save_model(root / "model", 0, **shape(options.width, options.layers))
        live = CausalLM().live_model(saved, torch.device("cpu"), torch.float32)
        live.module.generation_config.eos_token_id = None  # type: ignore[union-attr]
        for shared in dict.fromkeys((0, options.shared)):
            tasks = task(root / f"tasks {shared}", options.examples, shared)
            sizes = options.examples, options.batch, options.answer
            asked = {
                name: benchmark(tasks, *sizes, prefix_cache=chosen)
                for name, chosen in (("prefix_cache=false", False), ("prefix_cache=auto", "auto"))
            }
            prompts = [asked["prefix_cache=auto"].describe("search", at)[0] for at in range(options.examples)]
            ways: dict[str, Callable[[], object]] = {
                "plain generate": lambda prompts=prompts: loop(live, prompts, options.batch, options.answer)
            }
            for name, each in asked.items():
                ways[name] = lambda each=each: each.answers(live, "search", range(options.examples))
            found = measured(ways, options.rounds)
            assert len({tuple(map(str.strip, answers)) for _, answers in found.values()}) == 1, "answers differ"
            rows(shared, "answers", found)
            first = asked["prefix_cache=auto"]
            plain = HFLM(pretrained=live.module, tokenizer=live.tokenizer, batch_size=options.batch)
            likely: dict[str, Callable[[], object]] = {
                "lm-eval's HFLM": lambda f=first, p=plain: of_texts(
                    p, f._tasks["search"], f._asked(live, "search"), "token", templated=False
                )
            }
            for name, each in asked.items():
                likely[name] = lambda each=each: each.log_likelihoods(live, "search", None, "token")
            found = measured(likely, options.rounds)
            values = [torch.tensor(value) for _, value in found.values()]
            for other in values[1:]:
                torch.testing.assert_close(other, values[0], rtol=1e-4, atol=1e-4)
            rows(shared, "log-likelihoods", found)


if __name__ == "__main__":
    main()
