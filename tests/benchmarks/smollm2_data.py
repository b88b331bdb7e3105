"""Skills from public data for tests.benchmarks.smollm2_search: first steps of word problems, calculations, and JNLI.

DATA holds gsm8k/test.jsonl (openai/grade-school-math, MIT) and jglue/jnli-valid-v1.3.json (yahoojapan/JGLUE,
CC BY-SA 4.0). No example that a search sees, in any of its splits, is trained on.

- `steps`: a word problem in English; the model writes the first step of its solution, in words of its own. A step
  counts where its number is the result of one of the steps of the worked answer, and is no number of the question.
- `sums`: a calculation; the model writes its result.
- `jnli`: two captions in Japanese; the model writes how the second one follows from the first: 含意, 矛盾 or 中立.
"""

import json
import random
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

LABELS = {"entailment": "含意", "contradiction": "矛盾", "neutral": "中立"}
HELD_OUT = 210  # examples of each skill that only searches see: 90 search, 30 validation, 90 test
QUESTION, CAPTIONS = 160, 40  # characters of what is held out: long texts cost more, and are solved less
TRAINED_QUESTION, TRAINED_CAPTIONS = 260, 56  # and of what is trained on
MARKED = re.compile(r"<<[^>]*=\s*(-?[\d.]+)>>")
NUMBER = re.compile(r"\d[\d,]*\.?\d*")
CALCULATION = re.compile(r"<<([\d.+*/-]{3,24})=(-?[\d.]+)>>")
SIGN = re.compile(r"(?<=\d)([+*/-])")
Example = dict[str, object]


def numbers(text: str) -> list[float]:
    """All numbers of a text, in order; separators of thousands are left out."""
    return [float(found.replace(",", "")) for found in NUMBER.findall(text)]


def step(row: Mapping[str, str]) -> Example | None:
    """A GSM8K problem as `question`, `answer` (the first line) and `results`; None where that line has not one step."""
    lines = row["answer"].split("\n")
    found = MARKED.findall(lines[0])
    asked = set(numbers(row["question"]))
    results = sorted({float(value) for value in MARKED.findall(row["answer"])} - asked)
    if len(found) != 1 or float(found[0]) not in results or len(lines[0]) > 120 or "=" not in lines[0]:
        return None
    answer = re.sub(r"<<[^>]*>>", "", lines[0]).strip()
    if not numbers(answer) or numbers(answer)[-1] != float(found[0]):
        return None  # its number has to come last, as the metric reads it
    return {"question": " ".join(row["question"].split()), "answer": answer, "results": results}


def steps(data: Path) -> tuple[list[Example], list[Example]]:
    """Examples to train on and examples held out, of GSM8K."""
    lines = (data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    examples = [example for line in lines if (example := step(json.loads(line)))]
    random.Random(0).shuffle(examples)
    short = [example for example in examples if len(str(example["question"])) <= QUESTION]
    held = short[:HELD_OUT]
    longest = TRAINED_QUESTION
    return [e for e in examples if e not in held and len(str(e["question"])) <= longest], held


def jnli(data: Path) -> tuple[list[Example], list[Example]]:
    """Examples to train on and examples held out (as many of each label), of JNLI; no pictures in common."""
    lines = (data / "jglue" / "jnli-valid-v1.3.json").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    random.Random(0).shuffle(rows)
    held: list[Example] = []
    pictures: set[str] = set()
    train: list[tuple[set[str], Example]] = []
    room = dict.fromkeys(LABELS, HELD_OUT // len(LABELS))
    for row in rows:
        seen = set(row["yjcaptions_id"].split("-")[:1])
        example = {
            "sentence1": row["sentence1"],
            "sentence2": row["sentence2"],
            "answer": LABELS[row["label"]],
        }
        if room[row["label"]] and len(row["sentence1"] + row["sentence2"]) <= CAPTIONS:
            room[row["label"]] -= 1
            held.append(example)
            pictures |= seen
        elif len(row["sentence1"] + row["sentence2"]) <= TRAINED_CAPTIONS:
            train.append((seen, example))
    random.Random(1).shuffle(held)
    free = [example for seen, example in train if not seen & pictures]
    few = min(sum(example["answer"] == label for example in free) for label in LABELS.values())
    kept = [same[: 2 * few] for label in LABELS.values() if (same := [e for e in free if e["answer"] == label])]
    return [example for same in kept for example in same], held


def sums(data: Path) -> tuple[list[Example], list[Example]]:
    """Calculations of the worked answers of GSM8K, to train on and held out, every other one with spaces.

    Held out are those of problems that `steps` holds out, but for calculations that another problem has too.
    """
    lines = (data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    kept = {str(example["question"]) for example in steps(data)[1]}
    found: dict[bool, dict[str, Example]] = {True: {}, False: {}}
    for row in map(json.loads, lines):
        for term, result in CALCULATION.findall(row["answer"]):
            spaced = len(found[False]) % 2 == 1
            asked = f"{' '.join(SIGN.split(term))} =" if spaced else f"{term}="
            example: Example = {"question": asked, "answer": f" {result}" if spaced else result}
            found[" ".join(row["question"].split()) in kept].setdefault(asked, example)
    held = [example for asked, example in found[True].items() if asked not in found[False]]
    return list(found[False].values()), held


SKILLS = {"steps": steps, "sums": sums, "jnli": jnli}
DELIMITER = {"steps": " ", "sums": "", "jnli": ""}


def prompt(skill: str, example: Example) -> str:
    """What a model is asked, as in the task's yaml."""
    if skill == "sums":
        return str(example["question"])
    if skill == "steps":
        return f"Question: {example['question']}\nFirst step:"
    return f"A: {example['sentence1']}\nB: {example['sentence2']}\n関係:"


def completion(skill: str, example: Example) -> str:
    """What it learns to write, to the newline that ends it."""
    return f"{DELIMITER[skill]}{example['answer']}\n"


def write(examples: Iterable[Example], file: Path) -> None:
    """Write examples as JSON lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(example, ensure_ascii=False) + "\n" for example in examples), encoding="utf-8")
