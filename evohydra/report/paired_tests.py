"""Paired tests on the test split: winner against every other model of a run, strategy against strategy of a sweep."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evohydra.report.gathering import Job, strategies
from evohydra.report.score_figures import finished
from evohydra.report.tables import rows
from evohydra.scoring.job import Scores
from evohydra.scoring.statistics import Gain, gain_of_runs, holm, paired_gain


@dataclass(frozen=True)
class Compared:
    """How much `better` scores above `other`; `holm` is the p-value corrected for all pairs of the table.

    pairs: of runs with the same seed; 1 compares two models and nothing beyond them.
    """

    better: str
    other: str
    pairs: int
    gain: Gain
    holm: float


def winner_against_others(job: Job) -> list[Compared]:
    """The winner of a run against each source, base, merge and baseline, example by example (sign flips)."""
    winner = job.final("test")
    labels = [name for name, _ in rows((job.summary or {})["test"])][:-1]
    others = [(label, job.final("test", _in_ledger(label))) for label in labels]
    return _corrected(
        [("winner", label, 1, paired_gain(winner, scores)) for label, scores in others if winner and scores]
    )


def strategies_against_each_other(jobs: Sequence[Job]) -> list[Compared]:
    """Every two strategies, the better one first: runs of the same seed as pairs, examples as pairs in them.

    With one seed alone two winners are compared (sign flips), with more the strategies (`statistics.crossed`).
    Strategies that were not scored on the same examples are not compared, nor those of runs that cannot be.
    """
    told = strategies(finished(jobs))
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
        test: Callable[..., Gain] = _of_winners if len(seeds) == 1 else gain_of_runs
        gain = test([first[seed] for seed in seeds], [second[seed] for seed in seeds])
        if gain.difference < 0:
            one, two, gain = two, one, Gain(-gain.difference, -gain.high, -gain.low, gain.p)
        compared.append((one, two, len(seeds), gain))
    return _corrected(compared)


def _by_seed(jobs: Sequence[Job]) -> dict[object, Scores]:
    return {job.seed: scores for job in jobs if (scores := job.final("test"))}


def _of_winners(better: Sequence[Scores], other: Sequence[Scores]) -> Gain:
    return paired_gain(better[0], other[0])


def _shape(scores: Scores) -> tuple[tuple[str, int], ...]:
    return tuple((name, len(values)) for name, values in scores.items())


def _corrected(compared: Sequence[tuple[str, str, int, Gain]]) -> list[Compared]:
    corrected = holm([gain.p for *_, gain in compared])
    return [Compared(*each, p) for each, p in zip(compared, corrected, strict=True)]


def _in_ledger(row: str) -> str:
    """The label in finals.jsonl of a row of the score table."""
    return {"uniform merge": "uniform"}.get(row, row.removeprefix("source ").removesuffix(" at its defaults"))
