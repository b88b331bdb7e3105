"""Scenes of handwritten digits, and questions about them in English and Japanese: the world of the tiny VLM.

A scene has one to three of scikit-learn's bundled 8 x 8 digits, in three columns and at any of three heights. What is
asked is the same of a picture and of the scene told in words.
"""

import io
import random
import string
import sys
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from evohydra.zoo.problems import Language

Kind = Literal["which", "parity", "where", "count", "largest", "smallest", "sum"]
Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

CELL = 8
SIDE = 3 * CELL
KINDS: tuple[Kind, ...] = ("which", "parity", "where", "count", "largest", "smallest", "sum")
SPLITS = {"train": (0, 1100), "search": (1100, 1300), "validation": (1300, 1450), "test": (1450, 1797)}
"""Which handwritten digits, in their shuffled order, a split's scenes are made of."""
SIZES = {"search": 300, "validation": 200, "test": 1000}
BENCHMARK_SEED = 2403

# A bar divides tokens; a bar is no part of the text.
PLACES: dict[Language, tuple[str, ...]] = {
    "en": ("on the left", "in the middle", "on the right"),
    "ja": ("左", "真ん中", "右"),
}
PARITIES: dict[Language, tuple[str, str]] = {"en": ("even", "odd"), "ja": ("偶数", "奇数")}
SCENE: dict[Language, tuple[str, str]] = {"en": ("{digit}| |{place}", ". "), "ja": ("{place}|に|{digit}", "。")}
JOINER: dict[Language, str] = {"en": ", ", "ja": "、"}
PROMPT: dict[Language, str] = {"en": "Q: {}A: ", "ja": "問：{}答："}
OPENERS: dict[Language, tuple[str, ...]] = {
    "en": ("", "Look: ", "Please: ", "Well: ", "Now: ", "Teacher: "),
    "ja": ("ねえ、", "では、", "", "さて、", "先生、", "すみません、"),
}
QUESTIONS: dict[Language, dict[Kind, str]] = {
    "en": {
        "which": "Which digit| is |{place}|? ",
        "parity": "Is the digit| |{place}| even or odd|? ",
        "where": "Where is the |{digit}|? ",
        "count": "How many digits are there|? ",
        "largest": "Which digit| is |the largest|? ",
        "smallest": "Which digit| is |the smallest|? ",
        "sum": "What| is |the sum|? ",
    },
    "ja": {
        "which": "{place}|の|数字|は|何|ですか。",
        "parity": "{place}|の|数字|は|偶数|ですか、|奇数|ですか。",
        "where": "{digit}|は|どこ|にありますか。",
        "count": "数字|は|いくつ|ありますか。",
        "largest": "一番|大きい|数字|は|何|ですか。",
        "smallest": "一番|小さい|数字|は|何|ですか。",
        "sum": "合計|は|いくつ|ですか。",
    },
}
ANSWERS: dict[Language, dict[Kind, str]] = {
    "en": {
        "which": "The digit| |{place}| is |{digit}|.",
        "parity": "The digit| |{place}| is |{parity}|.",
        "where": "The |{digit}| is |{place}|.",
        "count": "The number of digits| is |{count}|.",
        "largest": "The largest digit| is |{digit}|.",
        "smallest": "The smallest digit| is |{digit}|.",
        "sum": "The sum| is |{sum}|.",
    },
    "ja": {
        "which": "{place}|の|数字|は|{digit}|です。",
        "parity": "{place}|の|数字|は|{parity}|です。",
        "where": "{digit}|は|{place}|にあります。",
        "count": "数字|は|{count}|個|あります。",
        "largest": "一番|大きい|数字|は|{digit}|です。",
        "smallest": "一番|小さい|数字|は|{digit}|です。",
        "sum": "合計|は|{sum}|です。",
    },
}


@dataclass(frozen=True)
class Scene:
    """One to three digits: for each its column and row (0 to 2), its value, and which handwritten digit shows it."""

    columns: tuple[int, ...]
    rows: tuple[int, ...]
    digits: tuple[int, ...]
    images: tuple[int, ...]

    def told(self, language: Language) -> str:
        """Return the scene in words."""
        part, end = SCENE[language]
        parts = [
            plain(part).format(digit=digit, place=PLACES[language][column])
            for column, digit in zip(self.columns, self.digits, strict=True)
        ]
        return JOINER[language].join(parts) + end


@dataclass(frozen=True)
class Question:
    """What is asked of a scene: the kind, and which of the scene's digits it is about; its opener sets its lean."""

    scene: Scene
    kind: Kind
    about: int
    opener: int

    @property
    def lean(self) -> float:
        """Return how much (-5 to 5) the question leans to an answer in Japanese."""
        return 2.0 * self.opener - 5.0

    def asked(self, language: Language) -> str:
        """Return the question in words."""
        return OPENERS[language][self.opener] + self._filled(QUESTIONS[language][self.kind], language)

    def answered(self, language: Language) -> str:
        """Return the answer in words."""
        return self._filled(ANSWERS[language][self.kind], language)

    def _filled(self, template: str, language: Language) -> str:
        digits = self.scene.digits
        digit = {"largest": max(digits), "smallest": min(digits)}.get(self.kind, digits[self.about])
        return plain(template).format(
            digit=digit,
            place=PLACES[language][self.scene.columns[self.about]],
            parity=PARITIES[language][digits[self.about] % 2],
            count=len(digits),
            sum=sum(digits),
        )


def plain(template: str) -> str:
    """Return the template without the bars between its tokens."""
    return template.replace("|", "")


def handwritten() -> tuple[Pixels, list[int]]:
    """Return all 1797 handwritten digits (1797, 8, 8) and their values, in the order that the splits cut."""
    from sklearn.datasets import load_digits

    bundled = load_digits()
    order = list(range(len(bundled.target)))
    random.Random(BENCHMARK_SEED).shuffle(order)
    return (bundled.images[order] * 15).astype(np.uint8), [int(value) for value in bundled.target[order]]


def draw_scene(rng: random.Random, labels: list[int], split: str, most: int = 3) -> Scene:
    """Draw a scene of the split's digits, with one digit at least."""
    columns = tuple(sorted(rng.sample(range(3), rng.randint(1, most))))
    rows = tuple(rng.randrange(3) for _ in columns)
    images = tuple(rng.sample(range(*SPLITS[split]), len(columns)))
    return Scene(columns, rows, tuple(labels[image] for image in images), images)


def draw_question(rng: random.Random, scene: Scene, kinds: tuple[Kind, ...] = KINDS) -> Question:
    """Draw a question that has one answer; a sum is asked of two digits, the largest of two or more."""
    while True:
        kind, about = rng.choice(kinds), rng.randrange(len(scene.digits))
        if kind == "sum" and len(scene.digits) != 2:
            continue
        if kind in ("largest", "smallest") and len(scene.digits) == 1:
            continue
        if kind == "where" and scene.digits.count(scene.digits[about]) > 1:
            continue
        return Question(scene, kind, about, rng.randrange(6))


def picture(scene: Scene, digits: Pixels) -> Pixels:
    """Return the scene as a grey image (24, 24)."""
    canvas = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for column, row, image in zip(scene.columns, scene.rows, scene.images, strict=True):
        canvas[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = digits[image]
    return canvas


def benchmark() -> dict[str, list[Question]]:
    """Return the benchmark's questions by split; no two of their pictures are alike."""
    _, labels = handwritten()
    rng = random.Random(BENCHMARK_SEED)
    splits: dict[str, list[Question]] = {}
    for split, size in SIZES.items():
        scenes: dict[Scene, None] = {}
        while len(scenes) < size:
            scenes.setdefault(draw_scene(rng, labels, split))
        splits[split] = [draw_question(rng, scene) for scene in scenes]
    return splits


def vocabulary() -> list[str]:
    """Return every token in a fixed order: the special ones, single characters, and the templates' words."""
    words: set[str] = set()
    for language in ("en", "ja"):
        templates = [*QUESTIONS[language].values(), *ANSWERS[language].values(), SCENE[language][0]]
        words.update(part for template in templates for part in template.split("|") if "{" not in part)
        words.update([*PLACES[language], *PARITIES[language], *OPENERS[language], SCENE[language][1]])
        words.update([JOINER[language], *PROMPT[language].split("{}")])
    characters = [*string.digits, *string.ascii_letters, *string.punctuation, " ", "\n"]
    return ["<pad>", "<eos>", "<unk>", "<image>", *characters, *sorted(words - set(characters) - {""})]


def png(pixels: Pixels) -> bytes:
    """Return the image as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return file.getvalue()


def main() -> None:
    """Write the benchmark, in the order of `SIZES`, to the Parquet file given as the first argument."""
    import pyarrow
    import pyarrow.parquet

    digits, _ = handwritten()
    rows = [
        {
            "image": png(picture(question.scene, digits)),
            "question": question.asked("ja"),
            "answer": question.answered("ja"),
        }
        for questions in benchmark().values()
        for question in questions
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sys.argv[1], compression="zstd")


if __name__ == "__main__":
    main()
