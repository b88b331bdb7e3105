"""The record of a search; to resume is to run again."""

import hashlib
import json
import math
import pickle
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from evohydra.searching.identity import check_identity
from evohydra.searching.json_lines import JsonLines, LedgerError, alone_in
from evohydra.searching.kept import (
    FieldOnFile,
    GenomeOnFile,
    Index,
    PackedPlaces,
    PackedScores,
    Read,
    Span,
    Spill,
    Spilled,
)

ELSEWHERE = ("genome", "genes", "scores", "examples")  # what is kept of a record apart from all else


@dataclass(frozen=True)
class Record:
    """One evaluated genome: a line of ledger.jsonl. `fitness` is None where the evaluation failed, see `error`.

    examples: the places in the search split that `scores` belong to, None for all of it. scored: how many of them were
    scored for this genome, and not copied from the same recipe. error_bar: of a fitness that is estimated. given_up:
    the error is the machine's, see `scoring.job.Evaluation`. limits: what has to be 0 or more of each limit, if any.
    """

    index: int
    generation: int
    genome: Sequence[float]
    genes: Mapping[str, object]
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
    given_up: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)

    def by_place(self) -> dict[str, dict[int, float]]:
        """The scores on each benchmark by the example's place in the search split."""
        examples = self.examples or {name: range(len(values)) for name, values in self.scores.items()}
        return {name: dict(zip(examples[name], values, strict=True)) for name, values in self.scores.items()}


class Lowest:
    """The lowest score of each benchmark up to each record: in memory is where a lower one came."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[array[int], array[float]]] = {}  # (places, values)

    def add(self, place: int, scores: Mapping[str, Sequence[float]]) -> None:
        """The scores of the record at `place`, one behind that of the call before."""
        for name, values in scores.items():
            places, lowest = self._steps.setdefault(name, (array("Q"), array("d")))
            here = min(values, default=math.inf)
            if here < (lowest[-1] if lowest else math.inf):
                places.append(place)
                lowest.append(here)

    def of(self, name: str, count: int) -> float | None:
        """The lowest score on a benchmark among the first `count` records; None where none has one."""
        places, lowest = self._steps.get(name, ((), ()))
        steps = bisect_left(places, count)
        return lowest[steps - 1] if steps else None


class Records(Sequence[Record]):
    """The records of a search so far, in order. In memory are some 60 bytes of each, whatever it holds.

    A record is made anew when it is asked for. Its scores are read from a file without a name in `directory`, its
    genome and its genes by `read` from its line of the ledger, when they are first looked at.
    """

    def __init__(self, directory: Path, read: Read) -> None:
        self._read = read
        self._fields, self._scores, self._places = Spill(directory), Spill(directory), Spill(directory)
        self._same, self._lowest = Index(), Lowest()  # by recipe, and by benchmark

    def append(self, record: Record) -> None:
        """The next record."""
        scores, places = PackedScores(record.scores), PackedPlaces(record.examples or {})
        fields = {name: value for name, value in vars(record).items() if name not in ELSEWHERE}
        fields["seconds"] = dict(record.seconds)
        names = tuple(scores), None if record.examples is None else tuple(places)
        self._scores.append(pickle.dumps(scores.pairs))
        self._places.append(pickle.dumps(places.pairs))
        self._same.add(_start(record.recipe), len(self))
        self._lowest.add(len(self), record.scores)
        self._fields.append(pickle.dumps((fields, len(record.genome), *names)))

    def __len__(self) -> int:
        return len(self._fields)

    @overload
    def __getitem__(self, at: int) -> Record: ...

    @overload
    def __getitem__(self, at: slice) -> list[Record]: ...

    def __getitem__(self, at: int | slice) -> Record | list[Record]:
        if isinstance(at, slice):
            return [self._made(number) for number in range(*at.indices(len(self)))]
        return self._made(range(len(self))[at])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def _made(self, number: int) -> Record:
        fields, genes, names, placed = pickle.loads(self._fields[number])
        return Record(
            **fields,
            genome=GenomeOnFile(self._read, number, genes),
            genes=FieldOnFile(self._read, number, "genes"),
            scores=Spilled(self._scores, number, names, float),
            examples=None if placed is None else Spilled(self._places, number, placed, int),
        )

    def lowest(self, name: str, count: int) -> float | None:
        """The lowest score on a benchmark among the first `count` of them; None where none has one."""
        return self._lowest.of(name, count)

    def same(self, recipe: str) -> list[Record]:
        """Those of the recipe with this digest."""
        found = [self._made(number) for number in self._same.numbers(_start(recipe))]
        return [record for record in found if record.recipe == recipe]


def _start(recipe: str) -> bytes:
    """What tells most recipes apart."""
    return hashlib.blake2b(recipe.encode(), digest_size=8).digest()


class Ledger:
    """The genomes of a search in their order, a line each of ledger.jsonl: what was asked, and what was told.

    `identity` says what the lines depend on; a directory that was begun with another one is refused
    (of versions of libraries alone not, with `allow_other_versions`).
    """

    def __init__(self, directory: Path, identity: Mapping[str, object], *, allow_other_versions: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:  # closes what is open where the next step fails
            opened.enter_context(alone_in(directory))
            self._lines = opened.enter_context(closing(JsonLines(directory / "ledger.jsonl", in_memory=False)))
            check_identity(directory / "run.json", identity, allow_other_versions=allow_other_versions)
            self._opened = opened.pop_all()
        self.records = Records(directory, self._lines.read)
        self.replayed = len(self._lines.entries)

    @property
    def path(self) -> Path:
        """The file."""
        return self._lines.path

    def names_of_scores(self) -> dict[str, int]:
        """Before the first record: what the scores on file are called, with the first line that has such ones."""
        found: dict[str, int] = {}
        for number, entry in enumerate(self._lines.entries, start=1):
            scores = entry.get("scores")
            for name in scores if isinstance(scores, dict) else ():
                found.setdefault(name, number)
        return found

    @property
    def so_far(self) -> Span[Record]:
        """The records as they are now, without a copy of them; later ones are not among them."""
        return Span(self.records, 0, len(self.records))

    @property
    def goes_on(self) -> bool:
        """Whether the next genome is on file."""
        return len(self._lines) > len(self.records)

    def on_file(self, genomes: NDArray[np.float64]) -> list[Record] | None:
        """The lines of the next genomes, (n, dim); None where not all are on file.

        LedgerError where a line is another genome's.
        """
        first = len(self.records)
        known = [self._line(first + place, genome) for place, genome in enumerate(genomes)]
        return None if None in known else [record for record in known if record is not None]

    def generation(self, number: int) -> NDArray[np.float64] | None:
        """The genomes of the next generation, (n, dim), where it is whole on file: a line of a later one follows."""
        entries, found = self._lines.entries, []
        for at in range(len(self.records), len(entries)):
            entry = entries[at]
            if entry.get("generation") != number:
                break
            found.append(entry.get("genome"))
        else:
            return None
        if not found or entry.get("generation") != number + 1:
            return None
        try:
            genomes = np.array(found, dtype=np.float64)
        except (TypeError, ValueError):
            return None  # damaged: what is asked is compared with it, line by line
        return genomes if genomes.ndim == 2 else None

    def _line(self, index: int, genome: NDArray[np.float64]) -> Record | None:
        if index >= len(self._lines):
            return None
        try:
            record = Record(**self._lines.read(index))
        except TypeError as error:
            raise LedgerError(f"{self._lines.path}: line {index + 1} is damaged ({error})") from error
        same = np.shape(record.genome) == genome.shape and np.allclose(record.genome, genome, rtol=0, atol=1e-12)
        if record.index != index or not same:
            raise LedgerError(
                f"{self._lines.path}: line {index + 1} holds another genome than the search asks for; another "
                "version of a library may have written it. Start a new run"
            )
        return record

    def add(self, record: Record) -> None:
        """The next record of the search, written unless it is on file.

        Of a generation that was not told whole (a smaller budget cut it short) other lines may be on file: they go.
        """
        assert record.index == len(self.records)
        line = json.loads(json.dumps(asdict(record)))
        if record.index < len(self._lines) and self._lines.read(record.index) != line:
            self._lines.cut(record.index)
        if record.index >= len(self._lines):
            self._lines.append(line)
        self.records.append(record)

    def drop(self, first: int) -> None:
        """Forget the records from number `first` on, in the file too."""
        self._lines.cut(first)
        kept = self.records[:first]
        self.records = Records(self.path.parent, self._lines.read)
        for record in kept:
            self.records.append(record)

    def same(self, recipe: str) -> list[Record]:
        """The records so far of the recipe with this digest."""
        return self.records.same(recipe)

    def close(self) -> None:
        """Release the run directory to other processes."""
        self._opened.close()
