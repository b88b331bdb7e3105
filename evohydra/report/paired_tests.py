"""Paired tests on the test split: winner against every other model of a run, strategy against strategy of a sweep."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from evohydra.report.gathering import Job, strategies
from evohydra.report.score_figures import bounds, finished
from evohydra.report.tables import rows
from evohydra.scoring.job import Scores
from evohydra.scoring.repeats import Bounds, runs_to_settle, spread
from evohydra.scoring.statistics import Gain, differences_of_runs, gain_of_runs, holm, paired_gain
from evohydra.searching.masks import label, mean_scores


@dataclass(frozen=True)
class Compared:
    """How much `better` scores above `other`; `holm` is the p-value corrected for all pairs of the table.

    pairs: of runs with the same seed; 1 compares two models and nothing beyond them. needed: how many pairs would show
    a difference of this size four times in five; None where that is not known, or where more runs would not.
    """

    better: str
    other: str
    pairs: int
    gain: Gain
    holm: float
    needed: int | None = None


def winner_against_others(job: Job) -> list[Compared]:
    """The winner of a run against each source, base, merge and baseline, example by example (sign flips)."""
    winner = job.final("test")
    labels = [name for name, _ in rows((job.summary or {})["test"])][:-1]
    others = [(row, _on_test(job, row)) for row in labels]
    return _corrected(
        [("winner", row, 1, paired_gain(winner, scores), None) for row, scores in others if winner and scores]
    )


def strategies_against_each_other(jobs: Sequence[Job]) -> list[Compared]:
    """Every two strategies, the better one first: runs of the same seed as pairs, examples as pairs in them.

    With one seed alone two winners are compared (sign flips), with more the strategies (`statistics.crossed`).
    Strategies that were not scored on the same examples are not compared, nor those of runs that cannot be.
    """
    told = strategies(finished(jobs))
    known = bounds(finished(jobs))
    among = None if known is None else (known[0] - known[1], known[1] - known[0])
    compared = []
    for one, two in itertools.combinations(told, 2):
        if told[one][0].group != told[two][0].group:
            continue
        first, second = (
            {job.seed: scores for job in told[name] if (scores := job.final("test"))} for name in (one, two)
        )
        seeds = [seed for seed in first if seed in second]
        if not seeds or len({_shape(scores[seed]) for seed in seeds for scores in (first, second)}) > 1:
            continue
        gain, needed = _compared([first[seed] for seed in seeds], [second[seed] for seed in seeds], among)
        if gain.difference < 0:
            one, two, gain = two, one, Gain(-gain.difference, -gain.high, -gain.low, gain.p)
        compared.append((one, two, len(seeds), gain, needed))
    return _corrected(compared)


def _by_seed(jobs: Sequence[Job]) -> dict[object, Scores]:
    return {job.seed: scores for job in jobs if (scores := job.final("test"))}


def tests_made(compared: Sequence[Compared]) -> str | None:
    """In a sentence, which tests strategies were compared by, and how their p-values were corrected."""
    if not compared:
        return None
    crossed = sum(each.pairs > 1 for each in compared)
    kinds = [
        f"{crossed} of strategies (runs of the same seed and examples paired, two-way random effects, Student's t, "
        "two-sided; Hillis 2007)"
        if crossed
        else "",
        f"{len(compared) - crossed} of two winners (examples paired, sign flips, two-sided)"
        if crossed < len(compared)
        else "",
    ]
    many = (
        "no correction, as it is the only one"
        if len(compared) == 1
        else f"p corrected for {len(compared)} tests (Holm 1979)"
    )
    return f"Tests made on the test split: {' and '.join(filter(None, kinds))}; {many}."


def _compared(better: Sequence[Scores], other: Sequence[Scores], among: Bounds | None) -> tuple[Gain, int | None]:
    """The difference, and how many pairs of runs would show one of this size."""
    if len(better) == 1:
        return paired_gain(better[0], other[0]), None
    gain = gain_of_runs(better, other, among)
    return gain, runs_to_settle(spread(differences_of_runs(better, other)), gain.difference)


def _shape(scores: Scores) -> tuple[tuple[str, int], ...]:
    return tuple((name, len(values)) for name, values in scores.items())


def _corrected(compared: Sequence[tuple[str, str, int, Gain, int | None]]) -> list[Compared]:
    corrected = holm([gain.p for *_, gain, _ in compared])
    return [
        Compared(better, other, pairs, gain, p, needed)
        for (better, other, pairs, gain, needed), p in zip(compared, corrected, strict=True)
    ]


def _on_test(job: Job, row: str) -> Scores | None:
    """The scores of a row of the score table, example by example; with random masks their mean over these."""
    name = _in_ledger(row)
    masks = ((job.summary or {})["test"]["baselines"].get(name) or {}).get("masks")
    if not masks or row == name:
        return job.final("test", name)
    each = [job.final("test", label(name, seed)) for seed in masks]
    known = [scores for scores in each if scores]
    return mean_scores(known) if len(known) == len(each) else None


def _in_ledger(row: str) -> str:
    """The label in finals.jsonl of a row of the score table."""
    return {"uniform merge": "uniform"}.get(row, row.removeprefix("source ").removesuffix(" at its defaults"))
