"""Single test examples for the report: those that the winner gets right and a source gets wrong, with the answers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evohydra.files import read_json, write_json
from evohydra.recipe import Node, digest
from evohydra.scoring.benchmarks import Answered, Benchmark, Described, Split
from evohydra.scoring.job import Evaluation

EACH = 4  # examples for each source and benchmark
WINNER = "winner"
Answers = Callable[[Node, str, Split, Sequence[int]], list[str]]  # of a model, on examples of a benchmark


def keep_examples(
    path: Path,
    benchmarks: Mapping[str, Benchmark],
    models: Mapping[str, tuple[Node, Evaluation]],
    answers_of: Answers,
) -> None:
    """Write them to `path`, once for a winner; `models` are the sources and the winner with their scores on test.

    Benchmarks that cannot describe their examples have none. Answers are asked for again, of these examples alone.
    """
    winner = digest(models[WINNER][0])
    if path.is_file() and read_json(path).get("recipe") == winner:
        return
    scored = {name: evaluation.scores for name, (_, evaluation) in models.items() if evaluation.scores}
    kept: list[dict[str, object]] = []
    for name, benchmark in benchmarks.items():
        if not isinstance(benchmark, Described) or WINNER not in scored:
            continue
        scores = {model: np.array(each[name]) for model, each in scored.items()}
        places = _telling(scores)
        answers: dict[str, list[str]] = {}
        if isinstance(benchmark, Answered) and places:
            answers = {m: answers_of(node, name, "test", places) for m, (node, _) in models.items() if m in scored}
        for number, place in enumerate(places):
            question, expected = benchmark.describe("test", place)
            kept.append(
                {
                    "benchmark": name,
                    "index": place,
                    "question": question,
                    "expected": expected,
                    "scores": {model: float(each[place]) for model, each in scores.items()},
                    "answers": {model: each[number] for model, each in answers.items()},
                }
            )
    write_json(path, {"recipe": winner, "examples": kept})


def _telling(scores: Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]) -> list[int]:
    """For each source the examples on which the winner is furthest above it, the first ones of equals.

    Where it is above none on any, the first examples of all: a reader sees why models score as they do.
    """
    places: list[int] = []
    for model, each in scores.items():
        above = scores[WINNER] - each
        order = [int(at) for at in np.argsort(-above, kind="stable") if above[at] > 0 and int(at) not in places]
        places += order[:EACH] if model != WINNER else []
    return places or list(range(min(EACH, len(scores[WINNER]))))
