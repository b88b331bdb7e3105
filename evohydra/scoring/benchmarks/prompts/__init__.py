"""Prompts for pictures: lists that come with evohydra, and files of one's own (JSON lines, CSV, text)."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evohydra.scoring.benchmarks import BenchmarkError

FIELDS = {"text": "prompt", "topic": "topic", "label": "label"}  # of a prompt: the column that holds it


@dataclass(frozen=True)
class Prompt:
    """What is to be drawn; `label` is what a classifier should see. `seed` of the noise, once it is an example."""

    text: str
    topic: str
    label: str | None = None
    seed: int = 0


def shipped() -> dict[str, Path]:
    """The lists that come with evohydra, by name."""
    return {file.stem: file for file in sorted(Path(__file__).parent.glob("*.jsonl"))}


def read_prompts(name: str, prompts: str) -> list[Prompt]:
    """The prompts of a shipped list or of a file, in its order.

    JSON lines and CSV have a column `prompt` and may have `topic` and `label`; a text file has a prompt a line. Raises
    BenchmarkError, about benchmark `name`, for a file that cannot be read so, an empty prompt and one that is repeated.
    """
    file = shipped().get(prompts, Path(prompts))
    where = f"benchmark {name!r}: prompts {prompts}"
    if not file.is_file():
        raise BenchmarkError(
            f"{where}: expected a list that comes with evohydra ({', '.join(shipped())}) or a file, got neither"
        )
    read = [_prompt(f"{where}, line {line}", row) for line, row in _rows(where, file)]
    if not read:
        raise BenchmarkError(f"{where}: no prompts")
    check_different(where, read)
    return read


def check_different(where: str, prompts: Sequence[Prompt]) -> None:
    """BenchmarkError for a text that is there twice: it would count twice, or be in two splits."""
    texts: set[str] = set()
    for prompt in prompts:
        if prompt.text in texts:
            raise BenchmarkError(f"{where}: the prompt {prompt.text!r} is there twice")
        texts.add(prompt.text)


def _rows(where: str, file: Path) -> list[tuple[int, Mapping[str, object]]]:
    """The rows of `file`, each with the number of its line."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{where}: not readable as UTF-8 text: {error}") from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if file.suffix == ".txt":
        return [(number, {"prompt": line.strip()}) for number, line in lines]
    if file.suffix == ".csv":
        reader = csv.DictReader(text.splitlines(keepends=True))
        return [(reader.line_num, row) for row in reader]
    if file.suffix != ".jsonl":
        raise BenchmarkError(f"{where}: expected a file .jsonl, .csv or .txt, got {file.name}")
    rows: list[tuple[int, Mapping[str, object]]] = []
    for number, line in lines:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BenchmarkError(f"{where}, line {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise BenchmarkError(f"{where}, line {number}: expected an object with the key 'prompt', got {row!r}")
        rows.append((number, row))
    return rows


def _prompt(where: str, row: Mapping[str, object]) -> Prompt:
    if unknown := sorted(str(key) for key in set(row) - set(FIELDS.values())):
        raise BenchmarkError(f"{where}: unknown columns {unknown}; known are {', '.join(FIELDS.values())}")
    text = row.get("prompt")
    if not isinstance(text, str) or not text.strip():
        raise BenchmarkError(f"{where}: expected a text as 'prompt', got {text!r}")
    topic, label = row.get("topic") or "", row.get("label")
    return Prompt(text.strip(), str(topic), None if label in (None, "") else str(label))
