"""How jobs are cut into parts for several workers."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from evohydra.recipe import Checkpoint
from evohydra.scoring.executors import Executor
from evohydra.scoring.job import Evaluation, Job
from evohydra.search.scheduler import Scheduler
from evohydra.search.scores import ScoreStore

EXAMPLES = 6


class Several:
    """An executor with `workers` that scores example i as i, in the order of submission, and says what it was given."""

    def __init__(self, workers: int, merge: float) -> None:
        self.workers, self._merge = workers, merge
        self.given: list[list[tuple[int, int] | None]] = []
        self._waiting: list[tuple[int, Job]] = []
        self._count = 0

    def submit(self, jobs: Sequence[Job]) -> list[int]:
        self.given.append([job.part for job in jobs])
        tickets = list(range(self._count, self._count + len(jobs)))
        self._count += len(jobs)
        self._waiting += zip(tickets, jobs, strict=True)
        return tickets

    def completed(self) -> tuple[int, Evaluation]:
        ticket, job = self._waiting.pop()
        index, count = job.part or (0, 1)
        places = list(range(EXAMPLES))[index::count]
        seconds = {"merge": self._merge, "evaluate": 1.0 / count}
        return ticket, Evaluation({"b": [float(at) for at in places]}, seconds, positions={"b": places})


def parts(
    directory: Path, workers: int, merge: float, generations: Sequence[int]
) -> list[list[tuple[int, int] | None]]:
    """The parts that were submitted for generations of so many jobs."""
    executor = Several(workers, merge)
    with closing(ScoreStore(directory / "scores.jsonl", {})) as store:
        scheduler = Scheduler(cast(Executor, executor), store)
        for generation, jobs in enumerate(generations):
            asked = [(str(at), Job(Checkpoint(f"{generation}-{at}", "-"), "search")) for at in range(jobs)]
            for pending in scheduler.submit(asked):
                assert scheduler.result(pending).scores == {"b": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]}
    return executor.given


@pytest.mark.parametrize(
    ("workers", "merge", "jobs", "expected"),
    [
        (1, 0.01, 3, [None, None, None]),
        (2, 0.01, 4, [None, None, (0, 2), (1, 2), (0, 2), (1, 2)]),
        (2, 0.01, 2, [(0, 2), (1, 2), (0, 2), (1, 2)]),
        (2, 0.5, 4, [None] * 4),  # merging twice would cost more than it saves
        (5, 0.5, 2, [(0, 2), (1, 2), (0, 2), (1, 2)]),  # fewer jobs than workers
        (3, 0.01, 1, [(0, 3), (1, 3), (2, 3)]),
    ],
)
def test_the_last_jobs_are_cut_so_that_workers_end_together(
    tmp_path: Path, workers: int, merge: float, jobs: int, expected: list[tuple[int, int] | None]
) -> None:
    first, second = parts(tmp_path, workers, merge, [workers, jobs])
    assert first == [None] * workers  # nothing is known of merging yet
    assert second == expected
