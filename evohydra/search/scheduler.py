"""Gets jobs scored: by what is on file, or by the executor; keeps each score as soon as it comes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from evohydra.recipe import Node
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.executors import Executor
from evohydra.scoring.job import Evaluation, Job, MachineError, checked, joined
from evohydra.search.scores import ScoreStore, content


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

    def __init__(self, executor: Executor, store: ScoreStore) -> None:
        self.executor, self.store = executor, store
        self._open: dict[int, Pending] = {}  # by the executor's ticket

    def submit(self, jobs: Sequence[tuple[str, Job]]) -> list[Pending]:
        """Jobs with their labels; what is on file is there at once, and fewer jobs than workers are shared by these."""
        pending = [Pending(label, job, self._on_file(label, job)) for label, job in jobs]
        asked = [each for each in pending if each.evaluation is None]
        shares = max(1, self.executor.workers // len(asked)) if asked else 1
        parts = [replace(each.job, part=(i, shares) if shares > 1 else None) for each in asked for i in range(shares)]
        tickets = self.executor.submit(parts) if parts else []
        for number, each in enumerate(asked):
            each.tickets = tickets[number * shares : (number + 1) * shares]
            self._open.update(dict.fromkeys(each.tickets, each))
        return pending

    def _on_file(self, label: str, job: Job) -> Evaluation | None:
        found = self.store.find(label, job)
        return None if found is None else checked(found)

    def result(self, pending: Pending) -> Evaluation:
        """The evaluation of a submitted job; waits for it, and keeps what else is scored meanwhile."""
        while pending.evaluation is None:
            ticket, evaluation = self.executor.completed()
            done = self._open.pop(ticket)
            done.parts[ticket] = evaluation
            if len(done.parts) == len(done.tickets):
                in_order = [done.parts[each] for each in done.tickets]
                done.evaluation = checked(in_order[0] if len(in_order) == 1 else joined(in_order))
                self.store.keep(done.label, done.job, done.evaluation)
        return pending.evaluation

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
                raise MachineError(f"{pending.label} could not be scored on {pending.job.split}: {evaluation.error}")
            found.append(evaluation)
        return found
