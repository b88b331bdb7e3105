"""Workers whose scores come from a function, for tests of what stands above the worker boundary."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

from evohydra.families import Overlay
from evohydra.families.sources import OpenSources
from evohydra.recipe import Node
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.executors.local import Local
from evohydra.scoring.job import Evaluation, Examples, Job
from evohydra.scoring.worker import Worker
from evohydra.searching.scheduler import Scheduler
from evohydra.searching.scores import ScoreStore

Evaluate = Callable[[Node, Split, Examples | None], Evaluation]


NO_SOURCES = OpenSources((), None, {}, {}, "", Overlay())  # of workers that merge nothing


class ScriptedWorker:
    """Scores jobs by `evaluate`; `expected` are the recipes that it was told of."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self.expected: list[Node] = []
        self.recoveries = 0

    def expect(self, recipes: Sequence[Node]) -> None:
        self.expected += recipes

    def evaluate(self, job: Job) -> Evaluation:
        return self._evaluate(job.recipe, job.split, job.examples)

    def recover(self) -> None:
        self.recoveries += 1


def local(evaluate: Any, retries: int = 2) -> Local:
    """The executor of this process with a scripted worker."""
    return Local(make=lambda: cast(Worker, ScriptedWorker(evaluate)), retries=retries)


@contextmanager
def scheduling(evaluate: Any, directory: Path) -> Iterator[Scheduler]:
    """A scheduler that keeps scores in `directory`."""
    with closing(ScoreStore(directory / "scores.jsonl", {})) as store:
        yield Scheduler(local(evaluate), store)
