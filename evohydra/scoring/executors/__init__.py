"""Executors: where jobs are scored. One file each, chosen as `executor=` on the command line."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from evohydra.scoring.executors.watch import Watch
from evohydra.scoring.job import Evaluation, Job

if TYPE_CHECKING:  # a process that only hands jobs on needs no tensors
    from evohydra.scoring.worker import Worker
Result = TypeVar("Result")
MakeWorker = Callable[[], "Worker"]


class Executor(Protocol):
    """Scores jobs on one worker or more; a result does not depend on which of them.

    Workers are made when they are needed for the first time: until then only the options are looked at.

    watch: what the workers do, and which turns at jobs have ended since somebody asked.

    A yaml in conf/executor is `_partial_`: the run adds `make`, which makes a worker in the process that calls it, and
    `worker_bytes`, the memory that a worker needs beside its imports, and `together`, of how many jobs at once a worker
    is told, where the backend works on several.
    """

    workers: int
    watch: Watch

    def submit(self, jobs: Sequence[Job]) -> list[int]:
        """Take jobs, which may be scored in any order; a ticket for each."""
        ...

    def completed(self) -> tuple[int, Evaluation]:
        """The next ticket whose job is scored; waits for one.

        Raises MachineError where jobs fail again and again for reasons that are the machine's, and whatever a job
        raises that is no failure of its genome (BenchmarkError, OSError).
        """
        ...

    def ask(self, task: "Callable[..., Result]", *given: object) -> Result:
        """What a worker gets from `task(worker, *given)`, where no job is open.

        Task, arguments and result are plain data or functions of modules, for they may cross to another process.
        """
        ...

    def close(self) -> None:
        """End the workers."""
        ...
