"""Workers end nearer together: in simulated time, with the durations of jobs given. Scores are the same either way."""

import heapq
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from evohydra.recipe import Checkpoint
from evohydra.scoring.executors import Executor
from evohydra.scoring.job import Evaluation, Job
from evohydra.searching import scheduler as schedulers
from evohydra.searching.balance import Balance
from evohydra.searching.scheduler import Scheduler
from evohydra.searching.scores import ScoreStore

MERGE = 0.02  # seconds
EXAMPLES = 40  # of a whole split


class Simulated:
    """Workers that take jobs in the order of submission; an example takes `pace` seconds. clock: the time."""

    def __init__(self, workers: int, pace: Callable[[Job], float]) -> None:
        self.workers, self._pace = workers, pace
        self._free = [0.0] * workers
        self._done: list[tuple[float, int, Evaluation]] = []
        self._count, self.clock, self.busy = 0, 0.0, 0.0

    def submit(self, jobs: Sequence[Job]) -> list[int]:
        self._free = [max(self.clock, free) for free in self._free]
        heapq.heapify(self._free)
        return [self._begun(job) for job in jobs]

    def _begun(self, job: Job) -> int:
        index, count = job.part or (0, 1)
        every = range(EXAMPLES) if job.examples is None else job.examples["b"]
        places = list(range(len(every)))[index::count]
        seconds = {"merge": MERGE, "evaluate": self._pace(job) * len(places)}
        end = heapq.heappop(self._free) + sum(seconds.values())
        heapq.heappush(self._free, end)
        self.busy += sum(seconds.values())
        self._count += 1
        scores = {"b": [float(every[at]) for at in places]}
        heapq.heappush(self._done, (end, self._count, Evaluation(scores, seconds, positions={"b": places})))
        return self._count

    def completed(self) -> tuple[int, Evaluation]:
        self.clock, ticket, evaluation = heapq.heappop(self._done)
        return ticket, evaluation

    @property
    def idle(self) -> float:
        """The share of the time of workers in which they waited."""
        return 1 - self.busy / (self.clock * self.workers)


class AsBefore(Balance):
    """No order, and only halves."""

    def order(self, jobs: Sequence[Job]) -> list[int]:
        return list(range(len(jobs)))

    def shares(self, given: Sequence[Job], workers: int) -> list[int]:
        jobs = len(given)
        if jobs < workers:
            return [workers // jobs] * jobs
        return [1 if number < jobs - workers or not self.merging else 2 for number in range(jobs)]


def carried_out(directory: Path, workers: int, rounds: Sequence[Sequence[Job]]) -> tuple[float, float, list[object]]:
    """The seconds of all rounds, each of which ends before the next one begins, the idle share, and the scores."""
    executor = Simulated(workers, lambda job: 0.25 if job.split == "test" else 0.05)
    directory.mkdir()
    found: list[object] = []
    with closing(ScoreStore(directory / "scores.jsonl", {})) as store:
        scheduler = Scheduler(cast(Executor, executor), store)
        for number, jobs in enumerate(rounds):
            pending = scheduler.submit([(f"{number} {at}", job) for at, job in enumerate(jobs)])
            found += [scheduler.result(each).scores for each in pending]
    return executor.clock, executor.idle, found


def node(name: object) -> Checkpoint:
    return Checkpoint(str(name), "-")


GENERATIONS = [[Job(node(f"{g} {at}"), "search") for at in range(9)] for g in range(20)]
FINALS = [[Job(node(f"v {at}"), "validation") for at in range(5)], [Job(node(f"t {at}"), "test") for at in range(7)]]
RACES = [
    [Job(node(f"r {g} {at}"), "search", {"b": list(range(40 if at == 8 else 4))}) for at in range(9)] for g in range(20)
]  # most members were scored on most of their examples before


@pytest.mark.parametrize(
    ("rounds", "before", "after"),
    [(GENERATIONS, 0.10, 0.02), (GENERATIONS[:2] + FINALS, 0.14, 0.06), (RACES, 0.20, 0.10)],
    ids=["generations", "finals", "races"],
)
def test_less_time_is_idle_and_scores_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: Sequence[Sequence[Job]], before: float, after: float
) -> None:
    seconds, now, scores = carried_out(tmp_path / "now", 4, rounds)
    monkeypatch.setattr(schedulers, "Balance", AsBefore)
    seconds_then, then, same = carried_out(tmp_path / "then", 4, rounds)
    assert scores == same
    print(f"idle {then:.3f}, {seconds_then:.1f} s before; {now:.3f}, {seconds:.1f} s now")
    assert seconds < seconds_then  # merges that are done twice included
    assert then > before
    assert now < after


def test_unknown_kinds_come_first_and_then_the_longest() -> None:
    balance = Balance()
    short, long = Job(node(1), "search", {"b": range(4)}), Job(node(2), "search")
    balance.saw(short, Evaluation({}, {"merge": 0.1, "evaluate": 1.0}))
    balance.saw(long, Evaluation({}, {"merge": 0.1, "evaluate": 9.0}))
    assert balance.order([short, long, Job(node(3), "test"), short]) == [2, 1, 0, 3]


def test_parts_are_no_shorter_than_their_merge() -> None:
    balance = Balance(merging=1.0, evaluating=10.0)
    jobs = [Job(node(at), "search") for at in range(65)]
    assert balance.shares(jobs, 64)[-1] == 10
    assert balance.shares(jobs[:5], 4) == [1, 2, 2, 2, 4]
    assert balance.shares(jobs[:3], 4) == [4, 4, 4]
    assert Balance(merging=1.0, evaluating=2.0).shares(jobs[:3], 4) == [1, 1, 1]
