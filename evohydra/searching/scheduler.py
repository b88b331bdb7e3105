"""Gets jobs scored: by what is on file, or by the executor; keeps each score as soon as it comes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from evohydra.recipe import Node
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.executors import Executor
from evohydra.scoring.job import Evaluation, Job, MachineError, checked, joined
from evohydra.searching.balance import Balance
from evohydra.searching.scores import ScoreStore, content
from evohydra.searching.worker_times import WorkerTimes


@dataclass
class Pending:
    """A job that was submitted, and its evaluation once it is there. `label` is for readers of the file.

    tickets: of the executor, one for each part of the job; parts: what is there of them.
    """

    label: str
    job: Job
    evaluation: Evaluation | None = None
    tickets: list[int] = field(default_factory=list)
    parts: dict[int, Evaluation] = field(default_factory=dict)


class Scheduler:
    """Between a search, which wants recipes scored, and what scores them."""

    def __init__(self, executor: Executor, store: ScoreStore, times: WorkerTimes | None = None) -> None:
        self.executor, self.store, self._times = executor, store, times
        self._open: dict[int, Pending] = {}  # by the executor's ticket
        self._balance = Balance()
        self._ahead: list[Pending] = []  # submitted before their generation is whole

    def submit(self, jobs: Sequence[tuple[str, Job]], *, whole: bool = False) -> list[Pending]:
        """Jobs with their labels; what is on file is there at once, and some are cut into parts (see `Balance`).

        whole: none is cut, for other jobs will come.
        """
        pending = [self._taken(label, job) or Pending(label, job, self._on_file(label, job)) for label, job in jobs]
        asked = [each for each in pending if each.evaluation is None and not each.tickets]
        if self.executor.workers > 1:  # one worker scores them in their own order
            asked = [asked[place] for place in self._balance.order([each.job for each in asked])]
        shares = [1] * len(asked)
        if asked and not whole:
            shares = self._balance.shares([each.job for each in asked], self.executor.workers)
        parts = [
            replace(each.job, part=(index, count) if count > 1 else None)
            for each, count in zip(asked, shares, strict=True)
            for index in range(count)
        ]
        tickets = iter(self.executor.submit(parts) if parts else [])
        for each, count in zip(asked, shares, strict=True):
            each.tickets = [next(tickets) for _ in range(count)]
            self._open.update(dict.fromkeys(each.tickets, each))
        return pending

    def ahead(self, label: str, job: Job) -> None:
        """Have a worker begin with a job that will be submitted under this label. None of its recipe may be on file."""
        self._ahead += self.submit([(label, job)], whole=True)

    def _taken(self, label: str, job: Job) -> Pending | None:
        """A job that was begun ahead and is submitted now."""
        found = next((each for each in self._ahead if (each.label, each.job) == (label, job)), None)
        if found is not None:
            self._ahead.remove(found)
        return found

    @property
    def busy(self) -> float:
        """Seconds that each worker has merged and evaluated, on average; what was on file took none."""
        return (self._balance.merging + self._balance.evaluating) / self.executor.workers

    def _on_file(self, label: str, job: Job) -> Evaluation | None:
        found = self.store.find(label, job)
        return None if found is None else checked(found)

    def result(self, pending: Pending) -> Evaluation:
        """The evaluation of a submitted job; waits for it, and keeps what else is scored meanwhile."""
        while pending.evaluation is None:
            self.wait()
        return pending.evaluation

    def wait(self) -> None:
        """Wait until an open job, or a part of one, is scored, and keep that."""
        ticket, evaluation = self.executor.completed()
        self._note_turns(ticket, evaluation)
        done = self._open.pop(ticket)
        done.parts[ticket] = evaluation
        if len(done.parts) < len(done.tickets):
            return
        in_order = [done.parts[each] for each in done.tickets]
        if len(in_order) > 1 and any(part.error and not part.given_up for part in in_order):
            self._uncut(done)
            return
        done.evaluation = checked(in_order[0] if len(in_order) == 1 else joined(in_order))
        self._balance.saw(done.job, done.evaluation)
        self.store.keep(done.label, done.job, done.evaluation)

    @property
    def waits(self) -> bool:
        """Whether jobs are open."""
        return bool(self._open)

    def _note_turns(self, ticket: int, evaluation: Evaluation) -> None:
        """Keep what workers did until a job was scored."""
        if self._times is None:
            return
        for turn in self.executor.watch.take():
            counts = turn.ticket == ticket and turn.outcome == "scored"
            self._times.add(turn, self._told(turn.ticket), evaluation if counts else None)

    def _told(self, ticket: int | None) -> str:
        """A job in words; "" where a worker was at none."""
        pending = None if ticket is None else self._open.get(ticket)
        if pending is None or ticket is None:
            return ""
        count = len(pending.tickets)
        part = f", part {pending.tickets.index(ticket) + 1} of {count}" if count > 1 else ""
        return f"{pending.label}{'' if pending.job.split == 'search' else f' on {pending.job.split}'}{part}"

    def at_work(self) -> dict[int, tuple[str, float]]:
        """What each worker that is at a job is at, in words, and for how many seconds."""
        now = time.time()
        at_it = list(self.executor.watch.open.items())  # at once: a display asks from another thread
        return {worker: (self._told(ticket), now - since) for worker, (ticket, _, since) in at_it}

    def _uncut(self, failed: Pending) -> None:
        """Score a job as a whole of which a part has failed: only then its error is the one that one worker finds."""
        (ticket,) = failed.tickets = self.executor.submit([failed.job])
        failed.parts = {}
        self._open[ticket] = failed

    def again(self, job: Job) -> Evaluation:
        """A job scored whatever is on file, where no other one is open; nothing of it is kept."""
        assert not self._open, "jobs are open"
        (submitted,) = self.executor.submit([job])
        ticket, evaluation = self.executor.completed()
        assert ticket == submitted
        return checked(evaluation)

    def scored(self, models: Mapping[str, Node], split: Split) -> dict[str, Evaluation]:
        """Models, by their labels, on a whole split; equal ones are scored once. MachineError where one is given up."""
        first: dict[str, str] = {}
        for label, recipe in models.items():
            first.setdefault(content(recipe), label)
        self._all([(label, Job(models[label], split)) for label in first.values()])
        return dict(zip(models, self._all([(label, Job(r, split)) for label, r in models.items()]), strict=True))

    def _all(self, jobs: Sequence[tuple[str, Job]]) -> list[Evaluation]:
        found = []
        for pending in self.submit(jobs):
            evaluation = self.result(pending)
            if evaluation.given_up:
                raise MachineError(
                    f"{pending.label} could not be scored on {pending.job.split}: {evaluation.error}. All scores so "
                    "far are kept; give the same command again when the machine is well"
                )
            found.append(evaluation)
        return found
