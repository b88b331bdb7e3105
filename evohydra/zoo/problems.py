"""The synthetic language of the embedded example: word problems in English and Japanese, and the benchmark's own."""

import json
import random
import re
import string
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Language = Literal["en", "ja"]
Operation = Literal["add", "sub", "copy", "most"]
Fact = tuple[Operation, int, int]

SEARCH, VALIDATION, TEST = slice(0, 300), slice(300, 500), slice(500, 1500)
"""Where the benchmark's three splits lie in its file of problems."""
BENCHMARK_SEED = 2403
PROMPT: dict[Language, str] = {"en": "Q: {}A: ", "ja": "問：{}答："}
ANSWER: dict[Language, str] = {"en": "The answer is {}.", "ja": "答えは{}です。"}

# A bar divides tokens; a bar is no part of the text.
TEMPLATES: dict[Language, dict[Operation, tuple[str, ...]]] = {
    "ja": {
        "add": (
            "{who}|は|{item}|を|{a}|{unit}|持っています。|{b}|{unit}|もらいました。|全部で|何|{unit}|ですか。",
            "{who}|は|{item}|を|{a}|{unit}|、|{other}|は|{b}|{unit}|買いました。|合わせて|何|{unit}|ですか。",
        ),
        "sub": (
            "{item}|が|{a}|{unit}|あります。|{who}|が|{b}|{unit}|使いました。|残りは|何|{unit}|ですか。",
            "{who}|は|{item}|を|{a}|{unit}|、|{other}|は|{b}|{unit}|持っています。|違いは|何|{unit}|ですか。",
        ),
        "copy": (
            "{who}|は|{item}|を|{a}|{unit}|、|{other}|は|{b}|{unit}|持っています。|{who}|は|何|{unit}|ですか。",
            "{item}|が|{a}|{unit}|あります。|{who}|が|{b}|{unit}|使いました。|初めは|何|{unit}|ですか。",
        ),
        "most": (
            "{who}|は|{item}|を|{a}|{unit}|、|{other}|は|{b}|{unit}|持っています。|多いのは|誰|ですか。",
            "{who}|は|{item}|を|{a}|{unit}|、|{other}|は|{b}|{unit}|買いました。|多いのは|誰|ですか。",
        ),
    },
    "en": {
        "add": (
            "{who}| has |{a}|{item}|. |{who}| gets |{b}|{item}|. |How many| in all|? ",
            "{who}| buys |{a}|{item}| and |{other}| buys |{b}|{item}|. |How many| together|? ",
        ),
        "sub": (
            "There are |{a}|{item}|. |{who}| uses |{b}|{item}|. |How many| are left|? ",
            "{who}| has |{a}|{item}| and |{other}| has |{b}|{item}|. |How many| apart|? ",
        ),
        "copy": (
            "{who}| has |{a}|{item}| and |{other}| has |{b}|{item}|. |How many| has |{who}|? ",
            "There are |{a}|{item}|. |{who}| uses |{b}|{item}|. |How many| at first|? ",
        ),
        "most": (
            "{who}| has |{a}|{item}| and |{other}| has |{b}|{item}|. |Who has more|? ",
            "{who}| buys |{a}|{item}| and |{other}| buys |{b}|{item}|. |Who has more|? ",
        ),
    },
}
NAMES: dict[Language, tuple[str, ...]] = {
    "ja": ("さくら", "けん", "ゆき", "たろう", "はな", "りく"),
    "en": ("Tom", "Ann", "Ben", "Sue", "Max", "Eve"),
}
ITEMS: dict[Language, tuple[tuple[str, str], ...]] = {
    "ja": (("りんご", "個"), ("本", "冊"), ("えんぴつ", "本"), ("紙", "枚"), ("たまご", "個"), ("花", "本")),
    "en": ((" apples", ""), (" books", ""), (" pens", ""), (" cards", ""), (" eggs", ""), (" roses", "")),
}


@dataclass(frozen=True)
class Problem:
    """One word problem: its text, the bare answer, its sum, and its lean (-5 to 5) to an answer in Japanese."""

    question: str
    answer: str
    fact: Fact
    language: Language
    lean: float

    def prompt(self) -> str:
        """Return the text that a model is asked to continue."""
        return PROMPT[self.language].format(self.question)


def draw_numbers(rng: random.Random, operation: Operation, low: int, high: int) -> tuple[int, int]:
    """Draw two unequal numbers of low..high, the larger first for a difference; sums of two-digit ones stay so."""
    while True:
        a, b = rng.randint(low, high), rng.randint(low, high)
        if a == b or (operation == "add" and low > 9 and a + b > 99):
            continue
        return (max(a, b), min(a, b)) if operation == "sub" else (a, b)


def draw(rng: random.Random, language: Language, operation: Operation, low: int, high: int) -> Problem:
    """Draw a problem with numbers of low..high from the generator."""
    a, b = draw_numbers(rng, operation, low, high)
    who, other = rng.sample(NAMES[language], 2)
    item, unit = rng.choice(ITEMS[language])
    template = rng.choice(TEMPLATES[language][operation])
    question = template.replace("|", "").format(who=who, other=other, item=item, unit=unit, a=a, b=b)
    answers = {"add": str(a + b), "sub": str(a - b), "copy": str(a), "most": who if a > b else other}
    lean = NAMES[language].index(who) + [name for name, _ in ITEMS[language]].index(item) - 5.0
    return Problem(question, answers[operation], (operation, a, b), language, lean)


def benchmark() -> list[Problem]:
    """Return the benchmark's 1500 problems: two-digit sums and differences in Japanese, no sum asked for twice."""
    rng = random.Random(BENCHMARK_SEED)
    found: dict[Fact, Problem] = {}
    while len(found) < TEST.stop:
        problem = draw(rng, "ja", "add" if len(found) % 2 else "sub", 10, 99)
        found.setdefault(problem.fact, problem)
    return list(found.values())


def english_benchmark(count: int = 800) -> list[Problem]:
    """Return the first problems of the benchmark in English: the same sums, which no model was trained on."""
    rng = random.Random(BENCHMARK_SEED + 1)
    found: list[Problem] = []
    for problem in benchmark()[:count]:
        operation, a, b = problem.fact
        who, other = rng.sample(NAMES["en"], 2)
        item, _ = rng.choice(ITEMS["en"])
        template = rng.choice(TEMPLATES["en"][operation]).replace("|", "")
        question = template.format(who=who, other=other, item=item, unit="", a=a, b=b)
        found.append(Problem(question, problem.answer, problem.fact, "en", 0.0))
    return found


def carries(fact: Fact) -> bool:
    """Whether a ten is carried as the two numbers are added."""
    _, a, b = fact
    return a % 10 + b % 10 > 9


def draw_unseen(
    rng: random.Random, language: Language, operation: Operation, low: int, high: int, held_out: Collection[Fact]
) -> Problem:
    """Draw a problem whose sum, in either language, is none of those held out."""
    while (problem := draw(rng, language, operation, low, high)).fact in held_out:
        pass
    return problem


def vocabulary() -> list[str]:
    """Return every token in a fixed order: the special ones, single characters, and the templates' words."""
    words: set[str] = set()
    for language, by_operation in TEMPLATES.items():
        for templates in by_operation.values():
            words.update(part for template in templates for part in template.split("|") if "{" not in part)
        words.update(NAMES[language])
        words.update(part for pair in ITEMS[language] for part in pair if part)
        for frame in (PROMPT[language], ANSWER[language]):
            words.update(part for part in frame.split("{}") if part)
    hiragana = [chr(code) for code in range(0x3041, 0x3094)]
    characters = [*string.digits, *string.ascii_letters, *string.punctuation, " ", "\n", *hiragana]
    return ["<pad>", "<eos>", "<unk>", *characters, *sorted(words - set(characters))]


def token_pattern(tokens: list[str]) -> str:
    """Return a regular expression that splits text into the tokens, longest first, and anything else by character."""
    plain = sorted((token for token in tokens if not re.fullmatch(r"<\w+>", token)), key=lambda t: (-len(t), t))
    return "|".join([*(re.escape(token) for token in plain), r"[\s\S]"])


def main() -> None:
    """Write the benchmark as JSON Lines to the path given as first argument; with `en` behind it the English one."""
    problems = english_benchmark() if sys.argv[2:] == ["en"] else benchmark()
    lines = [json.dumps({"question": p.question, "answer": p.answer}, ensure_ascii=False) for p in problems]
    Path(sys.argv[1]).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
