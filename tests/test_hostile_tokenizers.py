"""Rules of a tokenizer.json with which texts grow, or that never end, are one sentence; usual ones are good."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evohydra.checks import trials
from evohydra.families import tokenizer_files, tokenizers
from evohydra.families.processors import load_processor
from evohydra.families.tokenizer_files import check_tokenizer_files
from evohydra.merging.checkpoints import SourceError
from evohydra.scoring.benchmarks.prompts import Prompt
from evohydra.scoring.benchmarks.scorers import ScorerError
from evohydra.scoring.benchmarks.scorers.similarity import similarity
from tests import tiny_models, tiny_scorers, tiny_vlms
from tests.waiting import HANGS

GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


def replace(text: str, content: str, kind: str = "String") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {kind: text}, "content": content}


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def template(before: int, ids: int = 1) -> dict[str, Any]:
    piece = {"SpecialToken": {"id": "<eos>", "type_id": 0}}
    special = {"<eos>": {"id": "<eos>", "ids": [1] * ids, "tokens": ["<eos>"] * ids}}
    single = [*[piece] * before, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}


@pytest.fixture(autouse=True)
def _little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "SECONDS", 2.0)
    tokenizer_files._tried.cache_clear()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tiny_models.tokenizer().save_pretrained(tmp_path / "one")
    return tmp_path / "one"


def change(directory: Path, name: str = "tokenizer.json", **values: object) -> None:
    file = directory / name
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def model_with(directory: Path, **values: object) -> dict[str, object]:
    return {"model": json.loads((directory / "tokenizer.json").read_text())["model"] | values}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (
            {"normalizer": {"type": "Sequence", "normalizers": [replace(".", "." * 1000)] * 4}},
            "normalizer: expected text to grow at most 100 times, got 1000000000000 times",
        ),
        ({"normalizer": replace("", "ab" * 100, "Regex")}, "normalizer: .* got 201 times"),
        ({"decoder": replace(".", "." * 1000)}, "decoder: expected text to grow"),
        ({"normalizer": {"type": "Prepend", "prepend": "a" * 10**6}}, "normalizer.prepend: .* most 100, got 1000000"),
        ({"post_processor": template(200_000)}, "post_processor.single: expected at most 100 tokens around a text"),
        ({"post_processor": template(1, 200_000)}, "post_processor.single: .* got 200001"),
        (
            {"post_processor": {"type": "Sequence", "processors": [template(101)]}},
            "post_processor.processors.0.single: .* got 102",
        ),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 5000}}, "at most 1000 rules, got"),
        ({"pre_tokenizer": split("a" * 20_000)}, "pre_tokenizer.pattern.Regex: .* at most 10000, got 20000"),
        ({"pre_tokenizer": split(r"(a+)+$")}, "cutting a short text by its rules (fails|takes)"),
        ({"normalizer": replace(r"(x+x+)+y", "a", "Regex")}, "cutting a short text by its rules (fails|takes)"),
        ({"pre_tokenizer": split("(")}, "cutting a short text by its rules fails: .*parenthesis"),
        (
            {"padding": {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                         "pad_type_id": 0, "pad_token": "<pad>"}},
            "padding.strategy.Fixed: expected at most 100000, got 1000000000",
        ),
    ],
    ids=["grows", "grows at nothing", "grows back", "prepends", "specials", "ids", "inside", "steps", "long",
         "pattern", "replaced", "no pattern", "pads"],
)  # fmt: skip
def test_rules_that_do_not_end_are_one_sentence(directory: Path, values: dict[str, object], reason: str) -> None:
    change(directory, **values)
    begin = time.monotonic()
    with pytest.raises(SourceError, match=reason) as told:
        tokenizers.load(directory)
    assert str(directory / "tokenizer.json") in str(told.value)
    assert "\n" not in str(told.value)
    assert time.monotonic() - begin < HANGS


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"continuing_subword_prefix": "a" * 10**5}, "model.continuing_subword_prefix: .* at most 100, got 100000"),
        ({"end_of_word_suffix": "a" * 10**5}, "model.end_of_word_suffix: .* at most 100, got 100000"),
    ],
)
def test_models_that_make_more_of_each_word(directory: Path, values: dict[str, object], reason: str) -> None:
    change(directory, **model_with(directory, **values))
    with pytest.raises(SourceError, match=reason):
        tokenizers.load(directory)


def test_tokens_that_transformers_would_count_out(directory: Path) -> None:
    change(directory, "tokenizer_config.json", extra_ids=10**9)
    with pytest.raises(SourceError, match=r"tokenizer_config.json: extra_ids: expected at most 10000, got 1000000000"):
        tokenizers.load(directory)


@pytest.mark.parametrize(
    "values",
    [
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split(GPT4), {"type": "ByteLevel", "add_prefix_space":
          False, "trim_offsets": True, "use_regex": False}]}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")]},
         "decoder": {"type": "Sequence", "decoders": [replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"},
          {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}},
        {"post_processor": template(2)},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, replace(r"\s+", " ", "Regex"),
          {"type": "Lowercase"}]}},
    ],
    ids=["gpt4", "llama2", "template", "clip"],
)  # fmt: skip
def test_rules_of_real_models_are_good(directory: Path, values: dict[str, object]) -> None:
    change(directory, **values)
    assert len(tokenizers.load(directory)("1+1=2")["input_ids"]) > 0


def test_rules_that_are_nested_too_deep(directory: Path) -> None:
    whole, levels = (directory / "tokenizer.json").read_text(), 40_000
    deep = '{"type": "Sequence", "normalizers": [' * levels + '{"type": "NFC"}' + "]}" * levels
    (directory / "tokenizer.json").write_text(whole.replace("{", '{"deep": ' + deep + ", ", 1))
    with pytest.raises(SourceError, match=r"tokenizer.json is damaged \(expected JSON, got: maximum recursion"):
        tokenizers.load(directory)


def test_a_file_that_changed_is_looked_at_again(directory: Path) -> None:
    tokenizers.load(directory)
    change(directory, normalizer=replace(".", "." * 1000))
    with pytest.raises(SourceError, match="grow"):
        check_tokenizer_files(directory)


def test_tokenizers_of_processors_and_scorers_are_looked_at(tmp_path: Path) -> None:
    vlm = tiny_vlms.save_vlm(tmp_path / "vlm", "llava")
    scorer = tiny_scorers.save(tmp_path / "clip", tiny_scorers.clip_config())
    load_processor(vlm)
    similarity(str(scorer))([Image.new("RGB", (16, 16))], [Prompt("a", "")])
    for place in (vlm, scorer):
        change(place, normalizer=replace(".", "." * 1000))
    with pytest.raises(SourceError, match=r"tokenizer.json: normalizer: expected text to grow"):
        load_processor(vlm)
    with pytest.raises(ScorerError, match=r"tokenizer.json: normalizer: expected text to grow"):
        similarity(str(scorer))
