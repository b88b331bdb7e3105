"""One job after the other, in this process."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from evohydra.checks import Natural
from evohydra.scoring.executors import MakeWorker, Result
from evohydra.scoring.executors.attempts import Attempts
from evohydra.scoring.executors.watch import Watch
from evohydra.scoring.job import DeviceError, Evaluation, Job, MachineError

if TYPE_CHECKING:
    from evohydra.scoring.worker import Worker


class Local:
    """The executor of a single process with one live model, whatever memory it needs.

    together: of how many jobs at once the worker is told.
    """

    workers = 1

    def __init__(self, *, make: MakeWorker, worker_bytes: int = 0, retries: Natural = 2, together: int = 1) -> None:
        self._together = together
        self._attempts = Attempts(retries)
        self._make = make
        self.watch = Watch()

    @functools.cached_property
    def _worker(self) -> "Worker":
        return self._make()

    def submit(self, jobs: Sequence[Job]) -> list[int]:
        """Take jobs; they are scored in this order."""
        self._worker.expect([job.recipe for job in jobs])
        return [self._attempts.add(job) for job in jobs]

    def completed(self) -> tuple[int, Evaluation]:
        """The next ticket whose job is scored; see `Executor.completed`."""
        while True:
            taken = self._attempts.take()
            assert taken is not None, "no job is open"
            ticket, job = taken
            self.watch.begins(0, f"process {os.getpid()}", ticket)
            try:
                evaluation = self._worker.evaluate(job, *self._attempts.upcoming(self._together - 1))
            except DeviceError as error:
                raise MachineError(
                    f"{error}: this process cannot use the device any more. All scores so far are kept: give the same "
                    "command again. If the same recipe fails again, executor=processes tries it on fresh workers"
                ) from error
            except MachineError as error:
                self.watch.ends(0, "lost", str(error))
                self._worker.recover()
                self._attempts.failed(ticket, str(error))
                continue
            self.watch.ends(0, "scored")
            return self._attempts.passed(ticket, evaluation)

    def ask(self, task: Callable[..., Result], *given: object) -> Result:
        """`task(worker, *given)`."""
        return task(self._worker, *given)

    def close(self) -> None:
        """Nothing is left to be ended."""
