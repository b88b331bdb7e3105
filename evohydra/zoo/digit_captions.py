"""Captions of handwritten digits in English and Japanese: what the tiny diffusion models are asked, and asked for."""

import itertools
import random
from collections.abc import Sequence

from evohydra.zoo.problems import Language

Phrasing = tuple[str, str, str]  # opener, a template for the number, ending

NUMBERS: dict[Language, tuple[tuple[str, ...], ...]] = {
    "en": (
        ("zero",), ("one",), ("two",), ("three",), ("four",), ("five",), ("six",), ("seven",), ("eight",), ("nine",),
    ),
    "ja": (
        ("零", "ゼロ"), ("一", "いち"), ("二", "に"), ("三", "さん"), ("四", "よん"),
        ("五", "ご"), ("六", "ろく"), ("七", "なな"), ("八", "はち"), ("九", "きゅう"),
    ),
}  # fmt: skip
"""Words for the numbers 0 to 9; the Japanese ones in kanji and in kana."""
OPENERS: dict[Language, tuple[str, ...]] = {
    "en": ("", "a picture of ", "please draw ", "show me ", "i want "),
    "ja": ("", "手書きの", "きれいな", "大きな", "先生、", "黒板の"),
}
NOUNS: dict[Language, tuple[str, ...]] = {
    "en": ("{}", "the digit {}", "a handwritten {}", "the number {}"),
    "ja": ("{}", "数字の{}", "数の{}", "{}という字"),
}
ENDINGS: dict[Language, tuple[str, ...]] = {
    "en": ("", " .", " !"),
    "ja": ("", "。", "を描いて", "をください", "の絵", "の写真"),
}
SPLIT_SEED = 11
SPLITS = {"train": (0, 72), "search": (72, 96), "validation": (96, 112), "test": (112, 144)}
"""Which Japanese phrasings, in their shuffled order, are for training and for each split of the benchmark."""


def phrasings(language: Language, split: str = "train") -> list[Phrasing]:
    """Return the phrasings of the split; all English ones are for training."""
    every = list(itertools.product(OPENERS[language], NOUNS[language], ENDINGS[language]))
    if language == "en":
        return every
    random.Random(SPLIT_SEED).shuffle(every)
    return every[slice(*SPLITS[split])]


def said(phrasing: Phrasing, word: str) -> str:
    """Return the caption that asks for the number `word`."""
    opener, noun, ending = phrasing
    return opener + noun.format(word) + ending


def draw_caption(rng: random.Random, language: Language, digit: int, among: Sequence[Phrasing]) -> str:
    """Draw a caption of the digit, in one of the phrasings."""
    return said(rng.choice(among), rng.choice(NUMBERS[language][digit]))


def benchmark_captions(split: str) -> list[tuple[str, int]]:
    """Return all captions of a split of the benchmark, with their digits, in a fixed mixed order."""
    pairs = [
        (said(phrasing, word), digit)
        for phrasing in phrasings("ja", split)
        for digit in range(10)
        for word in NUMBERS["ja"][digit]
    ]
    random.Random(SPLIT_SEED).shuffle(pairs)
    return pairs
