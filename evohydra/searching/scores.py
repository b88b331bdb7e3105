"""What was scored, by content: scores.jsonl of a run, and one that the jobs of a sweep share.

The order of lines means nothing. What failed for a reason of the machine is not kept.
"""

import hashlib
import json
from array import array
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from filelock import FileLock

from evohydra.files import Plain
from evohydra.recipe import Checkpoint, Merge, Node, digest
from evohydra.scoring.benchmarks import SPLITS, Split
from evohydra.scoring.job import Evaluation, Job
from evohydra.searching.identity import Identity
from evohydra.searching.json_lines import JsonLines, LedgerError, sealed, unsealed
from evohydra.searching.kept import Index

LIMITS = "limits of "  # how the labels of numbers begin that limits are set on; the model's own follows
FIELDS = tuple(each.name for each in fields(Evaluation) if each.name not in ("given_up", "positions", "common"))
Key = tuple[str, str, str]  # content of the recipe, split, examples


def content(recipe: Node) -> str:
    """What tells models apart: the weights of a checkpoint, whatever its name and place, and the digest of a merge.

    A plain average of one model is that model, unless it has another configuration than merges have.
    """
    if isinstance(recipe, Merge) and recipe.method == "linear" and recipe.base is None and len(recipe.models) == 1:
        weights = {group.parameters.get("weight") for group in recipe.groups}
        only = recipe.models[0]
        if weights <= {1.0, (1.0,)} and not (isinstance(only, Checkpoint) and only.settings):
            return content(recipe.models[0])
    if isinstance(recipe, Checkpoint) and recipe.fingerprint is not None:
        return f"weights {recipe.fingerprint}{f' as {recipe.settings}' if recipe.settings else ''}"
    return digest(recipe)


def conditions(identity: Identity) -> dict[str, str]:
    """For each split a digest of what scores depend on beside recipe and examples: alignment, and how all is asked."""
    keys = {split: [identity.score_key(name, split) for name in identity.scores.benchmarks] for split in SPLITS}
    return {split: hashlib.sha256(" ".join(each).encode()).hexdigest() for split, each in keys.items()}


class ScoreStore:
    """The scores of a run; `conditions` says for each split what its scores depend on beside recipe and examples.

    `shared` is a file of the sweep that the run belongs to: what is scored for more than the search (sources,
    baselines, winners, and what bounds of limits refer to) is looked for and kept there too.
    """

    def __init__(self, path: Path, conditions: Mapping[str, str], shared: Path | None = None) -> None:
        self._lines = JsonLines(path, in_memory=False)
        self._conditions = conditions
        self._shared = shared
        self._known = Index()  # lines by their keys
        self._labels = Index()  # lines by their labels and keys
        self._splits = array("B")  # of each line, as a place in SPLITS
        try:
            self._remember_all()
        except LedgerError:
            self._lines.close()
            raise

    def _remember_all(self) -> None:
        self._known, self._labels, self._splits = Index(), Index(), array("B")
        for number, entry in enumerate(self._lines.entries):
            try:
                self._remember(number, entry)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise LedgerError(f"{self._lines.path}: line {number + 1} is damaged ({error!r})") from error

    def _remember(self, number: int, entry: Mapping[str, Any]) -> None:
        key = _key(entry)
        self._splits.append(SPLITS.index(entry["split"]))
        self._known.add(_short(*key), number)
        self._labels.add(_short(entry["label"], *key), number)

    def find(self, label: str, job: Job) -> Evaluation | None:
        """What is on file of this job, from now on under this label too."""
        key = (content(job.recipe), job.split, _places(job.examples))
        entry = next((each for each in self._read(self._known, _short(*key)) if _key(each) == key), None)
        if entry is None and (not key[2] or not _of_genome(label)):
            entry = self._found_in_sweep(key)
        if entry is None:
            return None
        labelled = self._read(self._labels, _short(label, *key))
        if not any((each["label"], _key(each)) == (label, key) for each in labelled):
            self._write({**entry, "label": label, "copied": True})
        return Evaluation(**{name: entry[name] for name in FIELDS if name in entry})

    def _read(self, index: Index, digest: bytes) -> Iterator[Plain]:
        """The lines of a digest, the first one first; what is told apart by it has to be compared."""
        return (self._lines.read(number) for number in index.numbers(digest))

    def keep(self, label: str, job: Job, evaluation: Evaluation) -> None:
        """A job was scored."""
        if evaluation.given_up:
            return
        scored = {name: value for name, value in asdict(evaluation).items() if name in FIELDS}
        at = {"split": job.split, "examples": job.examples, "recipe": content(job.recipe)}
        entry = {"label": label, **at, **scored, "copied": False}
        self._write(entry)
        if self._shared is not None and not (_of_genome(label) or evaluation.error):  # failures stay with their job
            with self._shared_lock(), self._shared.open("ab") as file:
                file.write(sealed({**entry, "conditions": self._conditions[job.split]}))

    def forget_failures(self, split: Split, labels: Collection[str]) -> None:
        """Take the failures of these models on a split, those of their limits too, off the file: they come anew."""
        failed = [
            (entry["recipe"], entry["label"]) if entry["error"] is not None and entry["split"] == split else None
            for entry in self._lines.entries
        ]
        recipes = {each[0] for each in failed if each is not None and each[1].removeprefix(LIMITS) in labels}
        kept = [each is None or each[0] not in recipes for each in failed]
        if not all(kept):
            self._lines.keep(kept)
            self._remember_all()

    def _write(self, entry: dict[str, Any]) -> None:
        self._lines.append(entry)
        self._remember(len(self._lines) - 1, entry)

    def _found_in_sweep(self, key: Key) -> dict[str, Any] | None:
        """What another job of the sweep has scored under the same conditions."""
        if self._shared is None or not self._shared.is_file():
            return None
        with self._shared_lock():
            lines = self._shared.read_bytes().splitlines()
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):  # a line that is torn, damaged or changed is no score
                entry = unsealed(line)
                if _key(entry) == key and entry.pop("conditions") == self._conditions[key[1]]:
                    return entry
        return None

    def _shared_lock(self) -> FileLock:
        assert self._shared is not None
        return FileLock(self._shared.with_suffix(".lock"))

    def entries(self, split: str) -> Iterator[Plain]:
        """All lines of a split, copied ones too; they are read from the file one by one."""
        wanted = [number for number, at in enumerate(self._splits) if SPLITS[at] == split]
        return map(self._lines.read, wanted)

    def examples_of(self, labels: Collection[str], split: str) -> int:
        """How many examples of a split were scored for these models."""
        scored = [e for e in self.entries(split) if e["label"] in labels and e["examples"] is None and not e["copied"]]
        return sum(len(values) for entry in scored for values in entry["scores"].values())

    def close(self) -> None:
        """Release the file."""
        self._lines.close()


def _key(entry: Mapping[str, Any]) -> Key:
    return entry["recipe"], entry["split"], _places(entry["examples"])


def _of_genome(label: str) -> bool:
    """Whether it is a genome's, whose scores other jobs of a sweep have no use for."""
    return label.removeprefix(LIMITS).startswith("genome ")


def _short(*parts: str) -> bytes:
    """What tells keys apart, for the most part."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()


def _places(examples: Any) -> str:
    """Examples as part of a key: "" for all of a split."""
    if examples is None:
        return ""
    return json.dumps({name: list(places) for name, places in sorted(examples.items()) if len(places)})
