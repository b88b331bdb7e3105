"""Scores of each benchmark by itself, where a run has several: the fitness alone may leave some of them out."""

from collections.abc import Iterable, Sequence

from evohydra.files import Plain


def several(scores: Iterable[Plain]) -> tuple[str, ...]:
    """The names of the benchmarks of these scores (as in summary.json) in order; none where there is one only."""
    return tuple(dict.fromkeys(name for score in scores for name in score.get("benchmarks") or ()))


def cells(score: Plain, names: Sequence[str]) -> list[str]:
    """The mean score of each benchmark in `names`; empty where the model has none."""
    known = score.get("benchmarks") or {}
    return [f"{known[name]:.3f}" if name in known else "" for name in names]
