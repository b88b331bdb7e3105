"""The tiny models whose wordings differ: how they were taught, and that both solve a part in words of their own."""

from pathlib import Path

import pytest
import torch

import evohydra
from evohydra.families.causal_lm import CausalLM
from evohydra.scoring.benchmarks.lm_eval import lm_eval_benchmarks
from evohydra.zoo.problems import Fact, Language, Problem, benchmark
from evohydra.zoo.train import Examples, build_tokenizer, worded
from evohydra.zoo.train_wordings import STAGES, any_of, short, with_steps
from tests.commands import carried_out, json_lines

ZOO = Path(evohydra.__file__).parent / "zoo"
SPLITS = {"search": {"start": 0, "stop": 100}, "validation": None, "test": {"start": 100, "stop": 110}}


def problem(fact: Fact, answer: str) -> Problem:
    return Problem("", answer, fact, "ja", 0.0)


@pytest.mark.parametrize(("form", "steps", "bare"), [
    ("ja", "しきは47-25=22です。", "22です。"), ("en", "47-25=22. The answer is 22.", "The answer is 22."),
])  # fmt: skip
def test_wordings(form: Language, steps: str, bare: str) -> None:
    asked = problem(("sub", 47, 25), "22")
    assert (with_steps(asked, form), short(asked, form)) == (steps, bare)
    assert with_steps(problem(("copy", 47, 25), "47"), form) == worded(problem(("copy", 47, 25), "47"), form)
    word = any_of((short, with_steps), 7)
    assert {word(asked, form) for _ in range(50)} == {steps, bare}


def test_training_never_asks_what_the_benchmark_asks() -> None:
    held_out = frozenset(each.fact for each in benchmark())
    questions = {each.prompt() for each in benchmark()}
    tokenizer = build_tokenizer()
    for stage in STAGES.values():
        tokens, labels = Examples(stage, tokenizer, held_out, with_steps).batch()
        prompts = [row[label == -100] for row, label in zip(tokens, labels, strict=True)]
        texts = {tokenizer.decode(prompt, skip_special_tokens=True) for prompt in prompts}
        assert len(texts) > 10
        assert not texts & questions


@pytest.mark.parametrize(("name", "begins"), [("tiny_steps", "しきは"), ("tiny_short", "")])
def test_each_solves_a_part_and_never_in_the_words_of_the_references(name: str, begins: str) -> None:
    asked = lm_eval_benchmarks(
        "tiny", task="tiny_gsm_ja", metric="exact_match", splits=SPLITS, generation_kwargs={"max_gen_toks": 24}
    )["tiny"]
    live = CausalLM().live_model(ZOO / name, torch.device("cpu"), torch.float32)
    answers, scores = asked.written(live, "search", range(100))
    right = [answer for answer, score in zip(answers, scores, strict=True) if score == 1]
    assert 25 <= len(right) <= 75
    assert all(answer.startswith(begins) and not answer.startswith("答えは") for answer in right)


def test_the_experiment_searches_in_the_words_of_both(tmp_path: Path) -> None:
    command = ["experiment=tiny_wordings", "tracker=none", "report=false", "threads=1", "baselines=null", "budget=16"]
    summary = carried_out([*command, "audit=none"], tmp_path / "run")
    (of,) = summary["search"]["references"]["benchmarks"].values()
    assert (of["asked"], of["used"]) == (128, 64)
    lines = json_lines(tmp_path / "run" / "references.jsonl")
    right = [text for line in lines[:-1] for text in line["right"].values()]
    steps = sum(text.startswith("しきは") for text in right)
    assert 20 < steps < len(right) - 40
    assert not any(text.startswith("答えは") for text in right)
    assert summary["test"]["winner"]["score"] > 0.4
