"""What a ledger says of a generation is not believed: it is judged again from the scores on file, and compared."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np

from evohydra.recipe import digest
from evohydra.scoring.benchmarks.likelihood import benchmark_of
from evohydra.scoring.executors import Result
from evohydra.scoring.executors.watch import Watch
from evohydra.scoring.job import Evaluation, Job
from evohydra.searching.fitness import Fitness
from evohydra.searching.fitness.generation import Generation
from evohydra.searching.json_lines import LedgerError
from evohydra.searching.ledger import Ledger, Record
from evohydra.searching.rounds import Rounds, Scoring
from evohydra.searching.scheduler import Scheduler

FROM_RECIPES = ("generation", "recipe", "genes")
FROM_SCORES = ("error", "examples", "scores", "fitness", "objectives", "error_bar", "given_up", "limits")
CLOSE = 1e-6  # relative: estimates on other processors differ by their rounding


class NotOnFileError(LookupError):
    """A score that a generation was judged by is not on file any more."""


def check_replayed(
    generation: Generation, known: Sequence[Record], fitness: Fitness, scoring: Scoring, ledger: Ledger, *, cut: bool
) -> None:
    """LedgerError, with the line, where `known`, the lines of a generation, are not what its scores make of it.

    Where scores are not on file any more, and where a generation is `cut` short (who its other members were when it
    was judged is not known), what follows from each genome alone is compared.
    """
    for record, member in zip(known, generation.members, strict=True):
        expected = replace(record, generation=generation.number, recipe=member.digest, genes=dict(member.genes))
        _compare(record, expected, FROM_RECIPES, ledger)
        _check_places(record, scoring, ledger)
    if cut:
        return
    given_up = {record.recipe: str(record.error) for record in known if record.given_up}
    on_file = replace(scoring, scheduler=Scheduler(OnFile(given_up), scoring.scheduler.store))
    try:
        judged = Rounds(generation, on_file, ledger).judged(fitness(generation))
        again = list(on_file.limited(generation, (generation.record(each) for each in judged)))
    except NotOnFileError:
        return
    for record, expected in zip(known, again, strict=True):
        _compare(record, expected, FROM_SCORES, ledger)


def _compare(record: Record, expected: Record, names: Sequence[str], ledger: Ledger) -> None:
    for name in names:
        was, should = getattr(record, name), getattr(expected, name)
        if not _alike(was, should):
            what = f"has {name} {_short(was)}, where its genome and its scores give {_short(should)}"
            raise _changed(ledger, record, what)


def _check_places(record: Record, scoring: Scoring, ledger: Ledger) -> None:
    """Each score is a number, and belongs to an example of the search split."""
    sizes = scoring.sizes
    if record.error is not None and not record.scores and record.fitness is None:
        return
    places = record.examples or {name: range(len(values)) for name, values in record.scores.items()}
    complete = record.examples is not None or {name: len(each) for name, each in record.scores.items()} == dict(sizes)
    for name, values in record.scores.items():
        at = list(places.get(name, ()))
        size = sizes.get(benchmark_of(name), 0)
        complete &= len(at) == len(values) == len(set(at)) and all(0 <= place < size for place in at)
        complete &= all(_is_number(value) for value in values)
    if not complete:
        counts = {name: len(values) for name, values in record.scores.items()}
        raise _changed(ledger, record, f"has scores {counts} that do not fit the examples of the search split {sizes}")
    if not record.scores or not _is_number(record.fitness):
        raise _changed(ledger, record, f"has fitness {record.fitness!r}, where a number was expected")


def _changed(ledger: Ledger, record: Record, what: str) -> LedgerError:
    line = record.index + 1
    return LedgerError(
        f"{ledger.path}: line {line} {what}: it was changed after it was written. Delete this line and all after it: "
        "what was scored is in scores.jsonl, and they are made again from it"
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _alike(one: object, other: object) -> bool:
    """Whether two values of a record are the same, as JSON has them, and numbers up to rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple | range) and isinstance(other, list | tuple | range):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, np.generic) or isinstance(other, np.generic):
        return _alike(*(each.item() if isinstance(each, np.generic) else each for each in (one, other)))
    if isinstance(one, float) and isinstance(other, int | float) and not isinstance(other, bool):
        return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE**2)
    return one == other


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class OnFile:
    """An executor for replays: it scores nothing. `given_up` are the reasons, by the digest of the recipe."""

    workers = 1

    def __init__(self, given_up: dict[str, str]) -> None:
        self._given_up, self._open = given_up, deque[tuple[int, Job]]()
        self._tickets = 0
        self.watch = Watch()

    def submit(self, jobs: Sequence[Job]) -> list[int]:
        """Take jobs that are not on file."""
        first = self._tickets + 1
        self._tickets += len(jobs)
        self._open += enumerate(jobs, start=first)
        return list(range(first, self._tickets + 1))

    def completed(self) -> tuple[int, Evaluation]:
        """The failure of the next job, where that is why it is not on file. Raises NotOnFileError."""
        ticket, job = self._open.popleft()
        reason = self._given_up.get(digest(job.recipe))
        if reason is None:
            raise NotOnFileError(f"no scores on file, on the {job.split} split, of the recipe {digest(job.recipe)}")
        return ticket, Evaluation({}, error=reason, given_up=True)

    def ask(self, task: Callable[..., Result], *given: object) -> NoReturn:
        """Nothing can be asked."""
        raise NotOnFileError("nothing is asked in a replay")

    def close(self) -> None:
        """Nothing is left to be ended."""
