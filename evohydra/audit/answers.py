"""answers.jsonl: what each model answers to a handful of test examples, or to all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from evohydra.audit.asking import Ask
from evohydra.files import write_whole
from evohydra.recipe import Node
from evohydra.scoring.benchmarks import Audited, Benchmark, Described
from evohydra.searching.json_lines import sealed


def keep_answers(
    path: Path, benchmarks: Mapping[str, Benchmark], models: Mapping[str, Node], ask: Ask, most: int | None
) -> None:
    """Write a line for each model and example: prompt, reference, answer, what was judged of it, and its score.

    The first `most` test examples of each benchmark, None: all. Benchmarks whose models write nothing have none;
    where all are such, there is no file.
    """
    lines: list[bytes] = []
    for name, benchmark in benchmarks.items():
        if not isinstance(benchmark, Audited) or benchmark.lacks("none"):
            continue
        places: Sequence[int] = range(benchmark.size("test") if most is None else min(most, benchmark.size("test")))
        for model, node in models.items():
            given, error = ask(node, name, "test", list(places), "none")
            for place, each in zip(places, given, strict=False):
                told = benchmark.describe("test", place) if isinstance(benchmark, Described) else (None, None)
                lines.append(_line(name, model, place, told, vars(each)))
            if error is not None:
                lines.append(_line(name, model, -1, (None, None), {"error": error}))
    if lines:
        write_whole(path, b"".join(lines))


def _line(name: str, model: str, place: int, told: Sequence[str | None], answer: Mapping[str, object]) -> bytes:
    question, expected = told
    entry = {"benchmark": name, "model": model, "index": place, "prompt": question, "expected": expected, **answer}
    return sealed(json.loads(json.dumps(entry)))
