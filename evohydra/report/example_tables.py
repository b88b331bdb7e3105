"""The part of a report about single examples: what the winner of a run gets right and each source gets wrong."""

from collections.abc import Iterator

import numpy as np

from evohydra.checks import shown
from evohydra.files import Plain, read_json
from evohydra.report.answers import marked
from evohydra.report.blocks import Block, Table
from evohydra.report.examples import WINNER
from evohydra.report.gathering import Job


def example_blocks(job: Job | None) -> Iterator[Block]:
    """Counts over the test split, and the examples that the run has kept (examples.json)."""
    winner = job.final("test") if job else None
    if job is None or job.summary is None or winner is None:
        return
    rows = []
    for source in job.summary["test"]["sources"]:
        scores = job.final("test", source)
        if scores is not None:
            change = np.concatenate([np.subtract(winner[name], scores[name]) for name in winner])
            rows.append((source, str((change > 0).sum()), str((change < 0).sum()), str((change == 0).sum())))
    heads = ("source", "winner better", "source better", "equal")
    yield Table(heads, rows, f"Test examples by who scores higher, the winner of run {job.name} or a source.")
    file = job.directory / "examples.json"
    kept = read_json(file) if file.is_file() else {}
    if kept.get("recipe") == job.summary["recipe_digest"]:  # else of another winner: the run was extended and killed
        yield from _kept(kept["examples"])


def _kept(examples: list[Plain]) -> Iterator[Block]:
    for benchmark in dict.fromkeys(example["benchmark"] for example in examples):
        told = [example for example in examples if example["benchmark"] == benchmark]
        models = list(told[0]["scores"])
        rows = [
            (
                str(each["index"]),
                _words(each["question"]),
                _words(each["expected"]),
                *(_answer(each["answers"].get(model), each["scores"][model]) for model in models),
            )
            for each in told
        ]
        heads = ("test example", "question", "expected", *models)
        beaten = any(each["scores"][WINNER] > score for each in told for score in each["scores"].values())
        which = "of the sources that it beats there" if beaten else "of the sources: it is above none on any example"
        caption = f"{benchmark}: answers and scores of the winner and {which}."
        yield Table(heads, rows, caption, words=True)


def _words(value: object) -> str:
    """A text of the file; of anything else, which a table could take for a link, how it is written."""
    return value if isinstance(value, str) else shown(value)


def _answer(text: str | None, score: float) -> str:
    mark = marked(score)
    return mark if text is None else f"{mark} {text}"
