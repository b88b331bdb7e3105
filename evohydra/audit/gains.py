"""What a gain on test rests on: easy examples or hard ones, and any tenth of them."""

from collections.abc import Mapping

import numpy as np

from evohydra.scoring.job import Scores
from evohydra.scoring.statistics import interval, paired_gain

TENTHS = 10


def by_difficulty(winner: Scores, sources: Mapping[str, Scores]) -> list[dict[str, object]]:
    """For each number of sources that solve an example: how many examples there are, and what the winner scores.

    Solved is a score of 1. Benchmarks whose scores are other numbers than 0 and 1 are left out.
    """
    groups: dict[int, list[float]] = {}
    for name, scores in winner.items():
        table = np.array([each[name] for each in sources.values()])
        if not len(table) or not np.isin(table, (0.0, 1.0)).all() or not np.isin(scores, (0.0, 1.0)).all():
            continue
        for solved, score in zip(table.sum(axis=0).astype(int).tolist(), scores, strict=True):
            groups.setdefault(solved, []).append(score)
    return [
        {"solved_by": solved, "examples": len(values), "winner": round(sum(values) / len(values), 4)}
        for solved, values in sorted(groups.items())
    ]


def without_tenths(winner: Scores, source: Scores) -> dict[str, object] | None:
    """The gain without each tenth of the examples in turn: the smallest and largest, and how many stay above 0.

    None for fewer than ten examples of a benchmark.
    """
    if any(len(values) < TENTHS for values in winner.values()):
        return None
    gains = []
    for tenth in range(TENTHS):
        differences = []
        for name, values in winner.items():
            both = np.subtract(values, source[name])
            differences.append(float(np.delete(both, np.arange(tenth, len(both), TENTHS)).mean()))
        gains.append(float(np.mean(differences)))
    return {"smallest": min(gains), "largest": max(gains), "above_0": sum(gain > 0 for gain in gains), "of": TENTHS}


def gain(winner: Scores, source: Scores) -> dict[str, object]:
    """The paired gain on the same examples, the mean over benchmarks, with its 95 % interval and both scores."""
    found = paired_gain(winner, source)
    return {
        "winner": interval(winner).score,
        "source": interval(source).score,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "n": sum(map(len, winner.values())),
    }
