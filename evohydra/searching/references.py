"""Right answers in models' own words: which ones a run searches by, in references.jsonl from its beginning to its end.

A line for each model and benchmark says what it was asked and which of its answers are right. The last line holds a
digest of all that scores depend on: from then on nothing is added, and a run that goes on has the same references.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from evohydra.recipe import Node
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.likelihood import Texts, benchmark_of, verified_in
from evohydra.scoring.job import Examples, Verified, Written
from evohydra.searching.json_lines import JsonLines, LedgerError
from evohydra.searching.ledger import Ledger
from evohydra.searching.scores import content

REFERENCES = "references.jsonl"
MOST = 4  # different right answers to an example, the first ones
RIGHT = 1.0  # what an answer scores that is right in all that the benchmark asks for
LEAST = 16  # examples with a right answer, below which a search by them says too little
Write = Callable[[Node, str, Sequence[int]], Written]  # a model, a benchmark, and places in its search split
Models = Mapping[str, tuple[str, Node]]  # by content: a label, and the recipe
Key = tuple[str, str]  # content of a model, benchmark
logger = logging.getLogger(__name__)


class OfBenchmark(TypedDict):
    """How many examples of a benchmark were asked, solved by a model, and are searched by (0: the metric decides)."""

    asked: int
    solved: int
    used: int
    texts: int
    digest: str


class Told(TypedDict):
    """What summary.json says of verified references: how many models wrote how many answers, and of each benchmark."""

    models: int
    generated: int
    benchmarks: dict[str, OfBenchmark]


@dataclass(frozen=True)
class References:
    """By benchmark and the example's place in the search split the right answers; what no model solves is not there.

    asked: how many examples of each benchmark models answered. models: how many did. generated: answers in all.
    """

    texts: Mapping[str, Texts]
    asked: Mapping[str, int]
    models: int
    generated: int

    def digests(self) -> dict[str, str]:
        """Of each benchmark's right answers, 12 hexadecimal digits."""
        return {name: _digest(texts) for name, texts in self.texts.items()}


def verified_references(path: Path, models: Mapping[str, Node], asked: Examples, write: Write) -> References:
    """The references of a run, in the words of `models` (by their labels), to the examples at `asked`.

    What is on file is not asked for again. Raises LedgerError for a file that other models or examples made, or that
    was changed, and BenchmarkError where no model can answer, or where scores do not say what is right.
    """
    different: dict[str, tuple[str, Node]] = {}
    for label, node in models.items():
        different.setdefault(content(node), (label, node))
    with closing(JsonLines(path)) as lines:
        frozen = bool(lines.entries) and "frozen" in lines.entries[-1]
        known = _known(lines.entries[: -1 if frozen else None], path, different, asked)
        if not frozen:
            for key, right in _asked_for(different, asked, write, known, lines):
                known[key] = right
        found = _together(known, different, asked)
        _freeze(lines, found, frozen=frozen)
    return found


def _asked_for(
    models: Models, asked: Examples, write: Write, known: Collection[Key], lines: JsonLines
) -> list[tuple[Key, dict[str, str]]]:
    """The right answers of those that are not `known`, each a line as soon as it is there."""
    found, failed = [], []
    for recipe, (label, node) in models.items():
        for name, places in asked.items():
            if (recipe, name) in known:
                continue
            written = write(node, name, places)
            if written.error is not None:
                failed.append(f"{label}: {written.error}")
                logger.warning("fitness.references=verified: no answers of %s", failed[-1])
                continue
            right = _right(name, places, written)
            lines.append({"label": label, "recipe": recipe, "benchmark": name, "asked": [*places], "right": right})
            found.append(((recipe, name), right))
    if failed and not found and not known:
        raise BenchmarkError(
            f"fitness.references=verified: none of {len(models)} models could answer ({failed[0]}). Nothing of this "
            "is kept: when the reason is mended, give the same command again"
        )
    return found


def check_same_references(ledger: Ledger, names: Sequence[str]) -> None:
    """LedgerError where the ledger holds likelihoods of other verified answers than those that are called `names`."""
    for name, line in ledger.names_of_scores().items():
        if verified_in(name) and name not in names:
            raise LedgerError(
                f"{ledger.path}: line {line} holds {name!r}, which is of other references than {REFERENCES} beside it "
                f"({', '.join(map(repr, names)) or 'none to search by'}). Give {REFERENCES} its old content, or choose "
                "another name with run=NAME"
            )


def told_of(found: References, verified: Verified) -> Told:
    """The numbers for summary.json; `verified`: the right answers that the search goes by."""
    used = {benchmark_of(name): len(texts) for name, texts in verified.items()}
    digests = found.digests()
    return {
        "models": found.models,
        "generated": found.generated,
        "benchmarks": {
            name: {
                "asked": found.asked[name],
                "solved": len(texts),
                "used": used.get(name, 0),
                "texts": sum(map(len, texts.values())),
                "digest": digests[name],
            }
            for name, texts in found.texts.items()
        },
    }


def _right(name: str, places: Sequence[int], written: Written) -> dict[str, str]:
    """By the example's place the answers that are right; BenchmarkError where scores go beyond that."""
    if (highest := max(written.scores, default=0.0)) > RIGHT:
        raise BenchmarkError(
            f"fitness.references=verified: benchmark {name!r} gives an answer {highest:g}; expected scores up to "
            f"{RIGHT:g}, which says that an answer is right. Choose fitness.references=task, or another metric"
        )
    told = zip(places, written.answers, written.scores, strict=True)
    return {str(place): answer for place, answer, score in told if score == RIGHT and answer.strip()}


def _known(
    entries: Sequence[Mapping[str, object]], path: Path, models: Models, asked: Examples
) -> dict[Key, dict[str, str]]:
    """What the lines hold, by model and benchmark; LedgerError where they are not of these models and examples."""
    known: dict[Key, dict[str, str]] = {}
    for number, entry in enumerate(entries, start=1):
        recipe, name, right = entry.get("recipe"), entry.get("benchmark"), entry.get("right")
        if (
            not isinstance(recipe, str)
            or not isinstance(name, str)
            or not isinstance(right, dict)
            or recipe not in models
            or entry.get("asked") != list(asked.get(name, ()))
        ):
            raise LedgerError(
                f"{path}: line {number} is of another model or of other examples than this run asks. Delete the file "
                "to have the references made again, or choose another name with run=NAME"
            )
        known[recipe, name] = right
    return known


def _together(known: Mapping[Key, Mapping[str, str]], models: Models, asked: Examples) -> References:
    """The different right answers to each example, in the order of the models, MOST of them."""
    texts: dict[str, dict[int, list[str]]] = {name: {} for name in asked}
    for recipe in models:
        for name in asked:
            for place, answer in known.get((recipe, name), {}).items():
                here = texts[name].setdefault(int(place), [])
                if answer not in here and len(here) < MOST:
                    here.append(answer)
    generated = sum(len(asked[name]) for _, name in known)
    answering = len({recipe for recipe, _ in known})
    return References(
        {name: dict(sorted(of.items())) for name, of in texts.items()},
        {name: len(places) for name, places in asked.items()},
        answering,
        generated,
    )


def _freeze(lines: JsonLines, found: References, *, frozen: bool) -> None:
    """Write the digests, or compare them with those on file."""
    digests = found.digests()
    if not frozen:
        lines.append({"frozen": digests})
    elif lines.entries[-1]["frozen"] != digests:
        raise LedgerError(
            f"{lines.path}: its last line has the digests {lines.entries[-1]['frozen']}, its other lines make "
            f"{digests}: it was changed after it was written. Choose another name with run=NAME"
        )


def _digest(texts: Texts) -> str:
    plain = [[place, list(each)] for place, each in sorted(texts.items())]
    return hashlib.sha256(json.dumps(plain, ensure_ascii=True).encode()).hexdigest()[:12]
