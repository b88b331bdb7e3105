"""Metrics of answers to questions about images."""

import pkgutil
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from evohydra.scoring.benchmarks import BenchmarkError


class Metric(Protocol):
    """The score of one answer, larger is better."""

    def __call__(self, answer: str, references: Sequence[str]) -> float:
        """A finite number for `answer`, given the answers that are right (at least one)."""
        ...


def checked_metric(name: str, path: str, references: Sequence[str]) -> Metric:
    """The metric at `path`, tried on one right answer, so that packages that it lacks are missed before the search."""
    try:
        metric: Metric = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise BenchmarkError(
            f"benchmark {name!r}: metric {path!r}: expected package.module:function, got {error}"
        ) from error
    try:
        score = float(metric(references[0], references))
    except TypeError as error:
        raise BenchmarkError(
            f"benchmark {name!r}: metric {path!r}: expected metric(answer, references) -> float, got {error}"
        ) from error
    if not np.isfinite(score):
        raise BenchmarkError(f"benchmark {name!r}: metric {path!r} gives {score} for a right answer")
    return metric
