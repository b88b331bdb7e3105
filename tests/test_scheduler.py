"""How jobs are cut into parts for several workers."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from evohydra.recipe import Checkpoint
from evohydra.scoring.benchmarks import CommonAnswer
from evohydra.scoring.benchmarks.lm_eval_benchmark import LMEvalBenchmark
from evohydra.scoring.executors import Executor
from evohydra.scoring.job import Evaluation, Job, broken_by, joined
from evohydra.searching.scheduler import Scheduler
from evohydra.searching.scores import ScoreStore

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


class Failing(Several):
    """The same, where the example at 3 fails, with words that count what was seen."""

    def completed(self) -> tuple[int, Evaluation]:
        ticket, evaluation = super().completed()
        assert evaluation.positions is not None
        places = evaluation.positions["b"]
        error = f"1 of {len(places)} is not a number" if 3 in places else None
        return ticket, replace(evaluation, scores={} if error else evaluation.scores, error=error)


def test_a_job_with_a_part_that_fails_has_the_error_of_one_worker(tmp_path: Path) -> None:
    with closing(ScoreStore(tmp_path / "scores.jsonl", {})) as store:
        scheduler = Scheduler(cast(Executor, executor := Failing(3, 0.01)), store)
        (pending,) = scheduler.submit([("0", Job(Checkpoint("0", "-"), "search"))])
        assert scheduler.result(pending).error == "1 of 6 is not a number"
    assert executor.given == [[(0, 3), (1, 3), (2, 3)], [None]]


EMPTY, SAME = "all answers are empty", "all answers are the same"


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([["", "", ""], [""]], EMPTY),  # a part with one answer alone
        ([[""], [""]], EMPTY),
        ([["a", "a"], ["a"]], SAME),
        ([["a", "a"], ["b", "b"]], None),
        ([["a", "a"], ["", ""]], None),
        ([["a", "b"], ["a"]], None),
        ([["a"], []], None),  # one answer in all
        ([["a", "a"], []], SAME),
        ([[1, 1], [1]], None),  # log-likelihoods
    ],
)
def test_parts_are_as_broken_as_the_whole(answers: list[list[object]], expected: str | None) -> None:
    def told(given: list[object]) -> CommonAnswer | None:
        benchmark = LMEvalBenchmark.__new__(LMEvalBenchmark)
        benchmark._answers = given
        return benchmark.common_answer()

    whole = [answer for part in answers for answer in part]
    assert broken_by({"b": told(whole)}) == expected
    at = iter(range(len(whole)))
    evaluations = []
    for part in answers:
        if not part:
            evaluations.append(Evaluation({}, {}, positions={"b": []}, common={}))
            continue
        places = [next(at) for _ in part]
        evaluations.append(Evaluation({"b": [0.0] * len(part)}, {}, positions={"b": places}, common={"b": told(part)}))
    assert joined(evaluations).broken == expected


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
