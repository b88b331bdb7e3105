"""Scores one answer of this task for lm-eval."""

from collections.abc import Mapping, Sequence
from typing import Any

from evohydra.scoring.benchmarks.japanese import gold_number, score_answer


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return exact_match, exact_match_strict and number_match, each 0 or 1, of the one answer in ``results``."""
    return score_answer(results[0], gold_number(doc))
