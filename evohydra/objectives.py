"""Objectives: the scores of an evaluation -> its fitness."""

import math
from collections.abc import Iterable, Mapping, Sequence


def mean(scores: Mapping[str, Sequence[float]]) -> float:
    """The mean over benchmarks of each one's mean score."""
    return sum(sum(values) / len(values) for values in scores.values()) / len(scores)


def finite(fitness: Sequence[float | None], seen: Iterable[float | None]) -> list[float]:
    """`fitness` with each failure (None, NaN, infinite) as the worst finite number of it and all `seen`; 0 if none."""
    numbers = [value for value in (*fitness, *seen) if value is not None and math.isfinite(value)]
    worst = min(numbers, default=0.0)
    return [value if value is not None and math.isfinite(value) else worst for value in fitness]
