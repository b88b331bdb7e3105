"""The record of a search; to resume is to run again."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evohydra.searching.identity import check_identity
from evohydra.searching.json_lines import JsonLines, LedgerError, alone_in
from evohydra.searching.kept import FieldOnFile, GenomeOnFile, PackedPlaces, PackedScores


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
        self.records: list[Record] = []
        self.replayed = len(self._lines.entries)
        self._same: dict[str, list[Record]] = {}

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
        small = self._small(record)
        self.records.append(small)
        self._same.setdefault(small.recipe, []).append(small)

    def _small(self, record: Record) -> Record:
        """The record with what is seldom asked for on file, and its scores as small as they can be."""
        read, number = self._lines.read, record.index
        return replace(
            record,
            genome=GenomeOnFile(read, number, len(record.genome)),
            genes=FieldOnFile(read, number, "genes"),
            seconds=FieldOnFile(read, number, "seconds"),
            scores=PackedScores(record.scores),
            examples=None if record.examples is None else PackedPlaces(record.examples),
        )

    def drop(self, first: int) -> None:
        """Forget the records from number `first` on, in the file too."""
        self._lines.cut(first)
        del self.records[first:]
        self._same = {}
        for record in self.records:
            self._same.setdefault(record.recipe, []).append(record)

    def same(self, recipe: str) -> Sequence[Record]:
        """The records so far of the recipe with this digest."""
        return self._same.get(recipe, ())

    def close(self) -> None:
        """Release the run directory to other processes."""
        self._opened.close()
