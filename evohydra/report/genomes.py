"""The genomes of a run on disk: what pages need of all of them is in memory, the rest stays in ledger.jsonl."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evohydra.files import Plain
from evohydra.searching.lines_on_file import LinesOnFile


@dataclass(frozen=True, slots=True)
class Genome:
    """A line of ledger.jsonl without genome, genes and scores, which may take a megabyte.

    fitness: None where it failed. scored: how many examples were scored for it, and not copied from the same recipe.
    dimension: of its genome. names: of its scores. keeps: whether it keeps all limits in the search, if there are any.
    """

    index: int
    generation: int
    fitness: float | None
    scored: int
    dimension: int
    names: tuple[str, ...]
    objectives: Mapping[str, float]
    note: str | None
    keeps: bool = True


def genomes_of(ledger: Path) -> tuple[Sequence[Genome], Sequence[Plain]]:
    """The genomes of a ledger, and its lines, which are read when they are asked for; none where there is no file.

    LedgerError for a damaged line.
    """
    found: list[Genome] = []
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # names are kept once

    def look(line: Plain) -> None:
        scores = line.get("scores") or {}
        names = tuple(scores)
        found.append(
            Genome(
                index=line["index"],
                generation=line["generation"],
                fitness=line["fitness"],
                scored=int(line.get("scored", sum(map(len, scores.values())))),
                dimension=len(line.get("genome") or ()),
                names=known.setdefault(names, names),
                objectives=line.get("objectives") or {},
                note=line.get("note"),
                keeps=all(margin >= 0 for margin in (line.get("limits") or {}).values()),
            )
        )

    lines = LinesOnFile(ledger, look)
    return found, lines
