"""The prompts that come with evohydra, and files of one's own."""

import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from evohydra.scoring.benchmarks import SPLITS, BenchmarkError
from evohydra.scoring.benchmarks.prompts import Prompt, read_prompts
from tests.contracts.discovery import composed
from tests.tiny_studio import benchmark


def japanese(character: str) -> bool:
    return any(word in unicodedata.name(character, "") for word in ("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC"))


def test_the_japanese_prompts_are_many_different_tagged_and_japanese() -> None:
    prompts = read_prompts("x", "ja")
    assert len(prompts) >= 120
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    topics = Counter(prompt.topic for prompt in prompts)
    assert len(topics) == 12
    assert min(topics.values()) >= 10
    for prompt in prompts:
        assert all(map(japanese, prompt.text)), prompt.text
        assert any("HIRAGANA" in unicodedata.name(character) for character in prompt.text), prompt.text
        assert 8 <= len(prompt.text) <= 40
        assert prompt.label is None


def test_every_split_of_ja_prompts_has_every_topic_and_no_two_share_a_prompt_or_a_seed() -> None:
    settings = composed("benchmark=[ja_prompts]")["benchmark"]["ja_prompts"]
    each = benchmark(splits=settings["splits"], prompts=settings["prompts"], shuffle=settings["shuffle"])
    assert [each.size(split) for split in SPLITS] == [48, 24, 60]
    topics = {prompt.topic for prompt in read_prompts("x", "ja")}
    examples = [example for split in SPLITS for example in each.examples(split)]
    assert len({e.text for e in examples}) == len({e.seed for e in examples}) == len(examples) == 132
    for split in SPLITS:
        assert {example.topic for example in each.examples(split)} == topics


def test_files_of_ones_own(tmp_path: Path) -> None:
    expected = [Prompt("猫, 白い", "動物", "cat"), Prompt("山", "", None)]
    (tmp_path / "a.jsonl").write_text(
        '{"prompt": "猫, 白い", "topic": "動物", "label": "cat"}\n\n{"prompt": " 山 "}\n', encoding="utf-8"
    )
    (tmp_path / "a.csv").write_text('\ufeffprompt,topic,label\n"猫, 白い",動物,cat\n山,,\n', encoding="utf-8")
    (tmp_path / "a.txt").write_text("猫, 白い\n\n  山\n", encoding="utf-8")
    for name in ("a.jsonl", "a.csv"):
        assert read_prompts("x", str(tmp_path / name)) == expected
    assert read_prompts("x", str(tmp_path / "a.txt")) == [Prompt(each.text, "") for each in expected]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": \n', "line 2: not JSON"),
        ("a.jsonl", '"a"\n', "line 1: expected an object with the key 'prompt', got 'a'"),
        ("a.jsonl", '{"text": "a"}\n', r"line 1: unknown columns \['text'\]; known are prompt, topic, label"),
        ("a.jsonl", '{"topic": "a"}\n', "line 1: expected a text as 'prompt', got None"),
        ("a.csv", "prompt,topic\na,b\n,c\n", "line 3: expected a text as 'prompt', got ''"),
        ("a.csv", "prompt\na,b\n", r"line 2: unknown columns \['None'\]"),
        ("a.txt", "a\nb\na\n", "the prompt 'a' is there twice"),
        ("a.txt", "\n", "no prompts"),
        ("a.yaml", "a\n", "expected a file .jsonl, .csv or .txt, got a.yaml"),
        ("a.txt", None, r"expected a list that comes with evohydra \(ja\) or a file, got neither"),
    ],
)
def test_files_that_cannot_be_used(name: str, content: str | None, expected: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(BenchmarkError, match=rf"benchmark 'x': prompts .*{name}.*{expected}"):
        read_prompts("x", str(tmp_path / name))


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("猫".encode("shift_jis"))
    with pytest.raises(BenchmarkError, match="not readable as UTF-8 text"):
        read_prompts("x", str(tmp_path / "a.txt"))
