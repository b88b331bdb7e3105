"""The embedded example: its problems, its models, and that no one was trained on the benchmark."""

import json
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import evohydra
from evohydra.zoo.problems import TEST, benchmark, draw_unseen, english_benchmark
from evohydra.zoo.train import STAGES, Examples, build_tokenizer

PACKAGE = Path(evohydra.__file__).parent
MODELS = ("base", "tiny_ja", "tiny_math")


def test_the_english_problems_are_the_same_sums():
    lines = (PACKAGE / "scoring/benchmarks/tasks/tiny_gsm_en/problems.jsonl").read_text(encoding="utf-8").splitlines()
    english = english_benchmark()
    assert [json.loads(line) for line in lines] == [{"question": p.question, "answer": p.answer} for p in english]
    assert [p.fact for p in english] == [p.fact for p in benchmark()[: len(english)]]


def test_the_problems_on_file_are_those_of_the_generator():
    lines = (PACKAGE / "scoring/benchmarks/tasks/tiny_gsm_ja/problems.jsonl").read_text(encoding="utf-8").splitlines()
    on_file = [json.loads(line) for line in lines]
    assert on_file == [{"question": p.question, "answer": p.answer} for p in benchmark()]
    assert len({row["question"] for row in on_file}) == TEST.stop == 1500


def test_answers_are_right():
    for problem in benchmark():
        operation, a, b = problem.fact
        assert int(problem.answer) == (a + b if operation == "add" else a - b)
        assert str(a) in problem.question
        assert str(b) in problem.question


def test_training_never_asks_what_the_benchmark_asks():
    held_out = frozenset(problem.fact for problem in benchmark())
    rng = random.Random(0)
    for language in ("ja", "en"):
        assert not {draw_unseen(rng, language, "add", 10, 99, held_out).fact for _ in range(2000)} & held_out
    questions = {problem.prompt() for problem in benchmark()}
    tokenizer = build_tokenizer()
    for stage in STAGES.values():
        tokens, labels = Examples(stage, tokenizer, held_out).batch()
        prompts = [row[label == -100] for row, label in zip(tokens, labels, strict=True)]
        texts = {tokenizer.decode(prompt, skip_special_tokens=True) for prompt in prompts}
        assert len(texts) > 10
        assert not texts & questions


@pytest.mark.parametrize("name", MODELS)
def test_models_load_as_anyone_would_load_them(name: str):
    model = AutoModelForCausalLM.from_pretrained(PACKAGE / "zoo" / name)
    tokenizer = AutoTokenizer.from_pretrained(PACKAGE / "zoo" / name)
    assert model.config.model_type == "llama"
    assert model.config.head_dim == 32  # what vLLM, SGLang and llama.cpp have kernels for
    assert 500_000 <= model.num_parameters() <= 2_000_000
    assert len(tokenizer) == model.config.vocab_size
    prompt = tokenizer("問：りんごが5個あります。さくらが2個使いました。残りは何個ですか。答：", return_tensors="pt")
    with torch.inference_mode():
        answer = tokenizer.decode(model.generate(**prompt, max_new_tokens=8)[0, prompt["input_ids"].shape[1] :])
    assert ("です" in answer) != ("answer" in answer)


def test_models_and_problems_are_small_and_hold_no_pickles():
    files = [path for name in MODELS for path in (PACKAGE / "zoo" / name).iterdir()]
    assert sum(path.stat().st_size for path in files) < 12e6
    assert {path.suffix for path in files} <= {".md", ".json", ".safetensors"}
    assert all((PACKAGE / "zoo" / name / "README.md").read_text().startswith(f"# {name}") for name in MODELS)
