"""Runs on disk, for programs and notebooks: scores, genomes, the winner."""

import html
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame

    from evohydra.files import Plain
    from evohydra.report.gathering import Job

FIGURE = Path("figures") / "fitness.png"
COLUMNS = ("index", "generation", "fitness", "error_bar", "scored", "tokens", "error")


class RunError(RuntimeError):
    """A run that ended with an error, or that has no winner yet."""


@dataclass(frozen=True)
class Scored:
    """A model of a run on the test split: its score with the 95 % interval over `n` examples; None where it failed."""

    name: str
    score: float | None
    low: float | None
    high: float | None
    n: int
    error: str | None = None


@dataclass(frozen=True)
class Winner(Scored):
    """The winner of a run.

    validation: its score on that split, None where there is none. path: its checkpoint. recipe: what it is a merge of.
    genes: the values of its genes by name. index: which genome of the search it is.
    """

    validation: float | None = None
    path: Path = Path()
    recipe: "Plain | None" = None
    genes: "Plain | None" = None
    index: int = 0


class Run:
    """A run on disk, whether it has ended or not; it is read anew by `load`."""

    def __init__(self, job: "Job") -> None:
        self._job = job

    @property
    def directory(self) -> Path:
        """Where it is."""
        return self._job.directory

    @property
    def name(self) -> str:
        """The name of its directory: with `run=` this name, the same options go on with it."""
        return self._job.name

    @property
    def state(self) -> str:
        """Finished, running, or how far it came."""
        return self._job.state

    @property
    def summary(self) -> "Plain":
        """All scores and counts, as in summary.json; RunError where the run has not ended."""
        if self._job.summary is None:
            failure = f": {self._job.failure}" if self._job.failure else ""
            raise RunError(f"{self.directory} has no winner ({self.state}{failure})")
        return self._job.summary

    @property
    def winner(self) -> Winner:
        """The merge that was chosen; RunError where the run has not ended."""
        from evohydra.files import current, read_json
        from evohydra.winner.writer import UNVERIFIED

        summary = self.summary
        index = summary["search"]["index"]
        at = next((at for at, each in enumerate(self._job.records) if each.index == index), None)
        validation, tested = summary["validation"]["winner"]["score"], summary["test"]["winner"]
        place = self.directory / (UNVERIFIED if "winner_unverified" in summary else "winner")
        recipe = read_json(current(self.directory, "recipe.json"))
        genes = None if at is None else self._job.lines[at].get("genes")
        return Winner(
            "winner", **_score(tested), validation=validation, path=place, recipe=recipe, genes=genes, index=index
        )

    @property
    def others(self) -> dict[str, Scored]:
        """What the winner is compared with on test, by the names of the report: sources, base, uniform, baselines."""
        from evohydra.report.tables import rows

        return {name: Scored(name, **_score(each)) for name, each in rows(self.summary["test"]) if name != "winner"}

    @property
    def gain(self) -> "Plain":
        """The winner above the best source, paired: `best_source`, `difference`, `low`, `high` (95 %) and `p`."""
        gain: Plain = self.summary["gain"]
        return gain

    def genomes(self) -> "DataFrame":
        """A row for each genome of the search, in its order.

        Columns: index, generation, fitness (None of one that failed, and `error` says why), error_bar, scored (how
        many examples), tokens, `seconds.merge` and their kin, `score.NAME` (the mean over what it was scored on), and
        `gene.NAME`.
        """
        import pandas as pd

        return pd.DataFrame([_row(each) for each in self._job.lines])

    def report(self) -> Path:
        """Write report.html and its figures anew, also of a run that goes on; returns its path."""
        from evohydra.report.writing import write_report

        return write_report([self.directory], self.directory)["report"]

    def __repr__(self) -> str:
        told = f"Run({str(self.directory)!r}, {self.state}"
        if self._job.summary is None:
            return f"{told})"
        score = self.winner.score
        return f"{told}, winner {'failed' if score is None else f'{score:.3f}'} on test)"

    def _repr_html_(self) -> str:
        """The table of scores and the curve of the search, for notebooks."""
        if self._job.summary is None:
            return f"<p>{html.escape(repr(self))}</p>"
        lines = [*self.others.values(), self.winner]
        rows = "".join(f"<tr><td>{html.escape(each.name)}</td><td>{_told(each)}</td></tr>" for each in lines)
        return f"<p>{html.escape(repr(self))}</p><table>{rows}</table>{_image(self.directory / FIGURE)}"


def _score(each: "Plain") -> "Plain":
    return {key: each.get(key) for key in ("score", "low", "high", "n", "error")}


def _image(file: Path) -> str:
    """A picture as part of a page; nothing where there is none."""
    if not file.is_file():
        return ""
    content = b64encode(file.read_bytes()).decode()
    return f'<img alt="fitness of the search" width="640" src="data:image/png;base64,{content}">'


def _told(each: Scored) -> str:
    if each.score is None:
        return html.escape(f"failed: {each.error}")
    return f"{each.score:.3f} ({each.low:.3f} to {each.high:.3f})"


def _row(record: "Plain") -> dict[str, object]:
    """A line of the ledger as a row of a table."""
    kept = {key: record.get(key) for key in COLUMNS}
    means = {f"score.{name}": sum(values) / len(values) for name, values in record["scores"].items() if values}
    seconds = {f"seconds.{name}": value for name, value in record["seconds"].items()}
    genes = {f"gene.{name}": value for name, value in record["genes"].items()}
    return {**kept, **means, **record.get("objectives", {}), **seconds, **genes}
