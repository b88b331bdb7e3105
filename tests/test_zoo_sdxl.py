"""The tiny SDXL pipelines: their captions, their judge, their skills, and a short search over their merge."""

import dataclasses
import random
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import evohydra
from evohydra.scoring.benchmarks.prompts import Prompt
from evohydra.scoring.benchmarks.scorers import ScorerError
from evohydra.scoring.benchmarks.scorers.digits import Digits, digits
from evohydra.zoo.digit_captions import NUMBERS, SPLITS, benchmark_captions, draw_caption, phrasings, said
from evohydra.zoo.digit_tokenizer import LENGTH, build_tokenizer
from evohydra.zoo.digits import DRAWN, JUDGED, pictures
from evohydra.zoo.problems import Language
from tests.commands import carried_out
from tests.contracts.discovery import composed

diffusers = pytest.importorskip("diffusers")
train_sdxl = pytest.importorskip("evohydra.zoo.train_sdxl")

ZOO = Path(evohydra.__file__).parent / "zoo"
MODELS = ("digits_base", "tiny_digits_en", "tiny_digits_ja")


def load(directory: Path) -> diffusers.StableDiffusionXLPipeline:
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(directory, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: diffusers.StableDiffusionXLPipeline, prompts: Sequence[Prompt]) -> list[Image.Image]:
    return pipeline(
        [prompt.text for prompt in prompts],
        num_inference_steps=4,
        guidance_scale=0.0,
        generator=[torch.Generator().manual_seed(number) for number in range(len(prompts))],
    ).images


def asked(language: Language, count: int = 100) -> list[Prompt]:
    if language == "ja":
        return [Prompt(text, "test", str(digit)) for text, digit in benchmark_captions("test")[:count]]
    rng = random.Random(0)
    drawn = [rng.randrange(10) for _ in range(count)]
    return [Prompt(draw_caption(rng, "en", digit, phrasings("en")), "test", str(digit)) for digit in drawn]


@pytest.fixture(scope="module")
def judge() -> Digits:
    return digits()


def test_captions_of_splits_share_no_phrasing_and_name_their_digit():
    found = {split: set(phrasings("ja", split)) for split in SPLITS}
    assert {split: len(known) for split, known in found.items()} == {
        "train": 72, "search": 24, "validation": 16, "test": 32,
    }  # fmt: skip
    assert not any(found[one] & found[two] for one, two in combinations(SPLITS, 2))
    texts = {split: [text for text, _ in benchmark_captions(split)] for split in SPLITS}
    assert not any(set(texts[one]) & set(texts[two]) for one, two in combinations(SPLITS, 2))
    for split, known in found.items():
        assert len(texts[split]) == len(set(texts[split])) == 20 * len(known)
        for text, digit in benchmark_captions(split):
            (_,) = {(p, w) for p in known for w in NUMBERS["ja"][digit] if said(p, w) == text}


def test_the_tokenizer_knows_every_caption():
    tokenizer = build_tokenizer()
    for language in ("en", "ja"):
        numbers = {word for words in NUMBERS[language] for word in words}
        ids = {tuple(tokenizer(word)["input_ids"]) for word in numbers}
        assert len(ids) == len(numbers)
        assert {len(each) for each in ids} == {3}  # begin, the number as one token, end
        captions = [said(p, w) for s in SPLITS for p in phrasings(language, s) for w in numbers]
        for caption, tokens in zip(captions, tokenizer(captions)["input_ids"], strict=True):
            assert len(tokens) <= LENGTH
            decoded = tokenizer.decode(tokens, skip_special_tokens=True)
            assert decoded.replace(" ", "") == caption.replace(" ", "")


def test_the_judge_reads_digits_that_it_was_not_fitted_on(judge: Digits):
    images, labels = pictures(DRAWN)
    prompts = [Prompt("", "", str(label)) for label in labels]
    shown = [Image.fromarray(image) for image in images]
    assert judge(shown, prompts).mean() > 0.97
    assert judge([ImageOps.invert(image) for image in shown], prompts).mean() < 0.2
    assert judge(shown[:10], [Prompt("", "", str((label + 1) % 10)) for label in labels[:10]]).sum() == 0
    assert len(labels) + len(pictures(JUDGED)[1]) == 1797
    right = np.exp(judge.log_probabilities(shown, prompts))
    others = [Prompt("", "", str((label + 1) % 10)) for label in labels]
    wrong = np.exp(judge.log_probabilities(shown, others))
    assert right.mean() > 0.9
    assert wrong.mean() < 0.02
    assert np.mean((right > 0.5) == judge(shown, prompts)) > 0.97
    with pytest.raises(ScorerError, match="'七': expected a digit as its label, got None"):
        judge(shown[:1], [Prompt("七", "")])


def test_training_draws_after_its_own_digits_and_repeats_itself():
    pipeline = train_sdxl.build_pipeline()
    unet = pipeline.unet.state_dict()
    seen = {image.tobytes() for image in pictures(DRAWN)[0]}
    assert seen.isdisjoint(image.tobytes() for image in pictures(JUDGED)[0])
    stage = dataclasses.replace(train_sdxl.STAGES["tiny_digits_ja"], steps=2, batch=4, warmup=1)
    trained = []
    for _ in range(2):
        pipeline.unet = diffusers.UNet2DConditionModel.from_config(pipeline.unet.config)
        pipeline.unet.load_state_dict(unet)
        train_sdxl.train_unet(pipeline, stage)
        trained.append(pipeline.unet.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in unet)
    changed = {name for name in unet if not torch.equal(unet[name], trained[0][name])}
    assert changed
    assert all(any(part in name for part in train_sdxl.ATTENTION) for name in changed)


def test_pipelines_load_as_anyone_would_load_them_and_share_all_but_the_unet():
    base, en, ja = (load(ZOO / name) for name in MODELS)
    parts = ("unet", "text_encoder", "text_encoder_2", "vae")
    assert 500_000 < sum(p.numel() for part in parts for p in getattr(base, part).parameters()) < 5_000_000
    for other in (en, ja):
        for part in parts[1:]:
            one, two = getattr(base, part).state_dict(), getattr(other, part).state_dict()
            assert all(torch.equal(one[name], two[name]) for name in one)
    weights = base.unet.state_dict()
    for name, tensor in ja.unet.state_dict().items():
        assert torch.equal(tensor, weights[name]) != any(part in name for part in train_sdxl.ATTENTION)
    assert base.tokenizer.get_vocab() == build_tokenizer().get_vocab()


def test_each_source_has_one_of_two_skills(judge: Digits):
    en, ja = load(ZOO / "tiny_digits_en"), load(ZOO / "tiny_digits_ja")
    english, japanese = asked("en"), asked("ja")
    assert judge(draw(en, english), english).mean() > 0.9
    assert judge(draw(en, japanese), japanese).mean() < 0.3
    drawn = draw(ja, japanese)
    assert judge([ImageOps.invert(image) for image in drawn], japanese).mean() > 0.7
    assert judge(drawn, japanese).mean() < 0.25
    assert np.mean([np.asarray(image).mean() for image in drawn]) > 128


def test_pipelines_are_small_and_hold_no_pickles():
    files = [path for name in MODELS for path in (ZOO / name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12e6
    assert {path.suffix for path in files} <= {".md", ".json", ".safetensors", ".jinja"}
    assert all((ZOO / name / "README.md").read_text().startswith(f"# {name}") for name in MODELS)


def test_a_short_search_beats_all_that_is_known_and_its_winner_draws_the_same_again(tmp_path: Path):
    settings = ["experiment=tiny_sdxl", "tracker=none", "budget=16", "optimizer.population=8", "top=2", "threads=1"]
    small = ["search.stop=40", "validation.stop=520", "test.stop=900"]
    summary = carried_out([*settings, *(f"benchmark.tiny_digits_ja.splits.{each}" for each in small)], tmp_path)
    scores = summary["test"]
    known = [*scores["sources"].values(), *scores["baselines"].values(), scores["uniform"], scores["base"]]
    assert scores["winner"]["score"] > max(each["score"] for each in known)
    winner = load(tmp_path / "winner")
    samples = sorted((tmp_path / "winner/samples").iterdir())
    card = (tmp_path / "winner/README.md").read_text()
    shown = re.findall(r"^\| !\[\]\(samples/\d\.png\) \| (.+?) \| (\d+) \|", card, re.M)
    assert len(samples) == len(shown) == 6
    again = winner(
        [text for text, _ in shown],
        num_inference_steps=4,
        guidance_scale=0.0,
        generator=[torch.Generator().manual_seed(int(seed)) for _, seed in shown],
    ).images
    for image, sample in zip(again, samples, strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(Image.open(sample)))


def test_the_search_with_a_sixth_of_the_pictures_differs_in_optimizer_fitness_and_budget_only():
    options = ["optimizer=bo", "fitness=likelihood", "fitness.scale=probability"]
    options += ["fitness.examples=34", "fitness.check_every=0", "budget=160"]
    assert composed("experiment=tiny_sdxl_fast", "run=it") == composed("experiment=tiny_sdxl", *options, "run=it")
    assert composed("experiment=tiny_sdxl_fast", "budget=20")["budget"] == 20
