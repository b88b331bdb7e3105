"""The tiny VLM: its scenes, its models, and that no digit of the benchmark was seen in training."""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

import evohydra
from evohydra.zoo.scenes import (
    KINDS,
    PROMPT,
    SIZES,
    SPLITS,
    benchmark,
    draw_question,
    draw_scene,
    handwritten,
    picture,
    vocabulary,
)
from evohydra.zoo.train import build_tokenizer
from evohydra.zoo.train_vlm import PATCHES, STAGES, Examples, pixel_values

PACKAGE = Path(evohydra.__file__).parent
DATA = PACKAGE / "scoring/benchmarks/tasks/tiny_vqa_ja"
MODELS = ("vlm_base", "tiny_vlm", "tiny_ja_lm")


def rows(split: str) -> list[dict[str, Any]]:
    start = {"search": 0, "validation": 300, "test": 500}[split]
    return pyarrow.parquet.read_table(DATA / "questions.parquet").to_pylist()[start : start + SIZES[split]]


def decoded(row: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(row["image"]))


def test_the_questions_on_file_are_those_of_the_generator():
    digits, _ = handwritten()
    for split, questions in benchmark().items():
        on_file = rows(split)
        assert len(on_file) == len(questions) == SIZES[split]
        for row, question in zip(on_file, questions, strict=True):
            assert (row["question"], row["answer"]) == (question.asked("ja"), question.answered("ja"))
            assert np.array_equal(np.asarray(decoded(row)), picture(question.scene, digits))


def test_splits_share_no_handwritten_digit():
    drawn = {split: {i for q in questions for i in q.scene.images} for split, questions in benchmark().items()}
    _, labels = handwritten()
    rng = random.Random(0)
    drawn["train"] = {i for _ in range(2000) for i in draw_scene(rng, labels, "train").images}
    assert len(labels) == SPLITS["test"][1] == 1797
    for split, images in drawn.items():
        assert not images & set().union(*(others for name, others in drawn.items() if name != split))
        assert len(images) > 100
    digits, _ = handwritten()
    cells = {split: {digits[i].tobytes() for i in images} for split, images in drawn.items()}
    assert not cells["train"] & (cells["search"] | cells["validation"] | cells["test"])


def test_answers_are_right():
    for question in benchmark()["test"]:
        scene, answer = question.scene, question.answered("ja")
        told = dict(zip(scene.columns, scene.digits, strict=True))
        place = ("左", "真ん中", "右")[scene.columns[question.about]]
        expected = {
            "which": f"{place}の数字は{told[scene.columns[question.about]]}です。",
            "parity": f"{place}の数字は{'奇数' if told[scene.columns[question.about]] % 2 else '偶数'}です。",
            "where": f"{scene.digits[question.about]}は{place}にあります。",
            "count": f"数字は{len(told)}個あります。",
            "largest": f"一番大きい数字は{max(told.values())}です。",
            "smallest": f"一番小さい数字は{min(told.values())}です。",
            "sum": f"合計は{sum(told.values())}です。",
        }
        assert answer == expected[question.kind]
    assert {question.kind for question in benchmark()["search"]} == set(KINDS)


def test_training_sees_training_digits_only_and_repeats_itself():
    digits, labels = handwritten()
    tokenizer = build_tokenizer(vocabulary())
    unseen = np.zeros_like(digits)
    unseen[: SPLITS["train"][1]] = digits[: SPLITS["train"][1]]
    for stage in STAGES.values():
        one = Examples(stage, tokenizer, digits, labels).batch()
        two = Examples(stage, tokenizer, unseen, labels).batch()
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_vlm_alone_has_seen_images():
    assert all(skill.seen == (name == "tiny_vlm") for name, stage in STAGES.items() for skill in stage.skills)


@pytest.mark.parametrize("name", MODELS)
def test_language_models_load_as_anyone_would_load_them(name: str):
    tokenizer = AutoTokenizer.from_pretrained(PACKAGE / "zoo" / name)
    if name == "tiny_vlm":
        model = AutoModelForImageTextToText.from_pretrained(PACKAGE / "zoo" / name)
        assert model.config.model_type == "llava"
    else:
        model = AutoModelForCausalLM.from_pretrained(PACKAGE / "zoo" / name)
        assert model.config.model_type == "llama"
    assert len(tokenizer) == model.config.get_text_config().vocab_size
    assert 500_000 <= model.num_parameters() <= 1_000_000


def vlm_answers(questions: list[str], images: list[Image.Image]) -> list[str]:
    model = AutoModelForImageTextToText.from_pretrained(PACKAGE / "zoo/tiny_vlm")
    processor = AutoProcessor.from_pretrained(PACKAGE / "zoo/tiny_vlm")
    inputs = processor(images=images, text=questions, return_tensors="pt", padding=True)
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=16, do_sample=False)
    return processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_the_processor_prepares_images_as_in_training():
    digits, labels = handwritten()
    image = picture(draw_scene(random.Random(0), labels, "test"), digits)
    processor = AutoProcessor.from_pretrained(PACKAGE / "zoo/tiny_vlm")
    inputs = processor(images=[Image.fromarray(image)], text=["<image>Q: What is the sum? A: "], return_tensors="pt")
    assert torch.allclose(inputs["pixel_values"], pixel_values([image]), atol=1e-6)
    assert (inputs["input_ids"] == 3).sum() == PATCHES


def test_the_vlm_answers_about_images_in_english():
    digits, labels = handwritten()
    rng = random.Random(5)
    questions = [draw_question(rng, draw_scene(rng, labels, "test")) for _ in range(200)]
    images = [Image.fromarray(picture(question.scene, digits)) for question in questions]
    asked = ["<image>" + PROMPT["en"].format(question.asked("en")) for question in questions]
    answers = vlm_answers(asked, images)
    right = np.mean([answer == question.answered("en") for answer, question in zip(answers, questions, strict=True)])
    assert right > 0.75
    test = rows("test")[:200]
    asked = ["<image>" + PROMPT["ja"].format(row["question"]) for row in test]
    answers = vlm_answers(asked, [decoded(row) for row in test])
    assert np.mean([answer == row["answer"] for answer, row in zip(answers, test, strict=True)]) < 0.2


def test_the_japanese_model_answers_about_scenes_in_words():
    model = AutoModelForCausalLM.from_pretrained(PACKAGE / "zoo/tiny_ja_lm")
    tokenizer = AutoTokenizer.from_pretrained(PACKAGE / "zoo/tiny_ja_lm")
    questions = benchmark()["test"][:200]
    asked = [question.scene.told("ja") + PROMPT["ja"].format(question.asked("ja")) for question in questions]
    inputs = tokenizer(asked, return_tensors="pt", padding=True)
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=16)
    answers = tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    right = [answer == question.answered("ja") for answer, question in zip(answers, questions, strict=True)]
    assert np.mean(right) > 0.85


def test_models_and_images_are_small_and_hold_no_pickles():
    files = [path for name in MODELS for path in (PACKAGE / "zoo" / name).iterdir()]
    assert sum(path.stat().st_size for path in files if path.suffix == ".safetensors") < 10e6
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 1.5e6
    assert {path.suffix for path in files} <= {".md", ".json", ".safetensors"}
    assert all((PACKAGE / "zoo" / name / "README.md").read_text().startswith(f"# {name}") for name in MODELS)
