"""The append-only record of evaluated recipes; to resume is to run again."""

import errno
import fcntl
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evohydra.files import write_json
from evohydra.recipe import Node, digest
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.evaluate import Evaluation

logger = logging.getLogger(__name__)
Evaluate = Callable[[Node, Split], Evaluation]
Scores = Mapping[str, Sequence[float]]  # for each benchmark, example by example
EVALUATION = tuple(each.name for each in fields(Evaluation))
Examples = Mapping[str, Sequence[int]]  # for each benchmark, places in a split


class LedgerError(ValueError):
    """A run directory that belongs to another run, is in use, or holds a damaged ledger."""


@dataclass(frozen=True)
class Record:
    """One evaluated genome: a line of ledger.jsonl. `fitness` is None where the evaluation failed, see `error`.

    examples: the places in the search split that `scores` belong to, None for all of it. scored: how many of them were
    scored for this genome, and not copied from the same recipe. error_bar: of a fitness that is estimated.
    """

    index: int
    generation: int
    genome: list[float]
    genes: Mapping[str, Any]
    recipe: str
    fitness: float | None
    scores: Mapping[str, list[float]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    tokens: int = 0
    objectives: Mapping[str, float] = field(default_factory=dict)  # where there are several
    examples: Mapping[str, Sequence[int]] | None = None
    scored: int = 0
    error_bar: float | None = None
    note: str | None = None

    def by_place(self) -> dict[str, dict[int, float]]:
        """The scores on each benchmark by the example's place in the search split."""
        examples = self.examples or {name: range(len(values)) for name, values in self.scores.items()}
        return {name: dict(zip(examples[name], values, strict=True)) for name, values in self.scores.items()}


class JsonLines:
    """A file of JSON objects, one a line, appended and flushed; a torn last line is cut off when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        self._file = path.open("a+b", buffering=0)
        try:
            self._lock()
            self._read()
        except LedgerError:
            self._file.close()
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LedgerError(f"{self.path}: another process is working on this run") from error
        except OSError as error:
            logger.warning("%s: this file system has no locks (%s); start each run once only", self.path, error)

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                self.entries.append(json.loads(line))
            except ValueError as error:
                raise LedgerError(f"{self.path}: line {number} is damaged ({error})") from error

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one line, whole or not at all; OSError where the disk is full."""
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        size = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError as error:
            os.ftruncate(self._file.fileno(), size)
            reason = f"{error.strerror}; all lines so far are whole: make room and give the same command again"
            raise OSError(error.errno, reason, str(self.path)) from error
        self.entries.append(dict(entry))

    def close(self) -> None:
        """Release the file to other processes."""
        self._file.close()


class Ledger:
    """What a run has evaluated: genomes in ledger.jsonl, and recipes on the other splits in finals.jsonl.

    rounds.jsonl holds the single scorings of genomes that are scored in several steps. `identity` says what the scores
    depend on; a directory that was begun with another one is refused.
    """

    def __init__(self, directory: Path, identity: Mapping[str, Any]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._rounds_path = directory / "rounds.jsonl"
        self._rounds: JsonLines | None = None
        with ExitStack() as opened:  # closes what is open where the next step fails
            self._lines = opened.enter_context(closing(JsonLines(directory / "ledger.jsonl")))
            self._finals = opened.enter_context(closing(JsonLines(directory / "finals.jsonl")))
            if self._rounds_path.is_file():
                self._rounds = opened.enter_context(closing(JsonLines(self._rounds_path)))
            _check_identity(directory / "run.json", identity)
            opened.pop_all()
        self.records: list[Record] = []
        self.replayed = len(self._lines.entries)
        self._same: dict[str, list[Record]] = {}
        self._round_at = (
            {_round_key(e["index"], e["examples"]): e for e in self._rounds.entries} if self._rounds else {}
        )

    def on_file(self, index: int, genome: NDArray[np.float64]) -> Record | None:
        """The line of genome number `index`, if there is one; LedgerError where it is another genome's."""
        if index >= len(self._lines.entries):
            return None
        try:
            record = Record(**self._lines.entries[index])
        except TypeError as error:
            raise LedgerError(f"{self._lines.path}: line {index + 1} is damaged ({error})") from error
        if record.index != index or not np.allclose(record.genome, genome, rtol=0, atol=1e-12):
            raise LedgerError(
                f"{self._lines.path}: line {index + 1} holds another genome than the search asks for; another "
                "version of a library may have written it. Start a new run"
            )
        return record

    def add(self, record: Record) -> None:
        """The next record of the search, written unless it is on file."""
        assert record.index == len(self.records)
        if record.index >= len(self._lines.entries):
            self._lines.append(asdict(record))
        self.records.append(record)
        self._same.setdefault(record.recipe, []).append(record)

    def same(self, recipe: str) -> Sequence[Record]:
        """The records so far of the recipe with this digest."""
        return self._same.get(recipe, ())

    def evaluation(self, index: int, examples: Examples, in_rounds: bool) -> Evaluation | None:
        """What is on file of scoring genome number `index` on `examples`."""
        if in_rounds:
            entry = self._round_at.get(_round_key(index, examples))
            return Evaluation(**{key: entry[key] for key in EVALUATION}) if entry else None
        if index >= len(self._lines.entries):
            return None
        line = Record(**self._lines.entries[index])
        known = line.by_place()
        scores = {} if line.error else {name: [known[name][place] for place in at] for name, at in examples.items()}
        return Evaluation(scores, line.seconds, line.error, line.tokens)

    def add_round(self, index: int, examples: Examples, evaluation: Evaluation) -> None:
        """Keep one scoring of genome number `index` until its line is written."""
        if self._rounds is None:
            self._rounds = JsonLines(self._rounds_path)
        entry = {"index": index, "examples": examples, **asdict(evaluation)}
        self._rounds.append(entry)
        self._round_at[_round_key(index, examples)] = entry

    def final(self, label: str, recipe: Node, split: Split, evaluate: Evaluate) -> Evaluation:
        """The evaluation of `recipe` on `split`, once a run; `label` is for readers of the file."""
        key = {"split": split, "recipe": digest(recipe)}
        for entry in self._finals.entries:
            if {"split": entry["split"], "recipe": entry["recipe"]} == key:
                return Evaluation(entry["scores"], entry["seconds"], entry["error"], entry.get("tokens", 0))
        evaluation = evaluate(recipe, split)
        self._finals.append({"label": label, **key, **asdict(evaluation)})
        return evaluation

    def scored_in_full(self, split: Split) -> int:
        """How many examples of `split` were scored for `final`."""
        entries = [entry for entry in self._finals.entries if entry["split"] == split]
        return sum(len(values) for entry in entries for values in entry["scores"].values())

    def close(self) -> None:
        """Release the run directory to other processes."""
        for file in (self._lines, self._finals, *([self._rounds] if self._rounds else [])):
            file.close()


def _round_key(index: int, examples: Examples) -> tuple[Any, ...]:
    return (index, *((name, *places) for name, places in sorted(examples.items())))


def _check_identity(path: Path, identity: Mapping[str, Any]) -> None:
    current = json.loads(json.dumps(identity))
    if not path.is_file():
        write_json(path, current)
        return
    known = json.loads(path.read_text())
    if known != current:
        differing = "; ".join(
            f"{key} was {was!r}, is now {now!r}" for key, was, now in sorted(_differences(known, current))[:5]
        )
        raise LedgerError(
            f"{path.parent} holds a run of another configuration ({differing}). Choose another name with run=NAME, or "
            "delete the directory"
        )


def _differences(known: Any, current: Any, at: str = "") -> Sequence[tuple[str, Any, Any]]:
    if isinstance(known, dict) and isinstance(current, dict):
        keys = sorted(known.keys() | current.keys())
        return [d for key in keys for d in _differences(known.get(key), current.get(key), f"{at}.{key}".lstrip("."))]
    return [] if known == current else [(at, known, current)]
