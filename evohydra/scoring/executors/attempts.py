"""Which jobs are tried again after a failure of the machine, and when that is no use any more."""

import itertools
import logging
from collections import deque

from evohydra.scoring.job import Evaluation, Job, MachineError

logger = logging.getLogger(__name__)
PATIENCE = 2  # recipes that fail for good before one has passed and while others are being scored


class Attempts:
    """The jobs of an executor: open ones in order, and what failed, with the reason.

    A job that the machine failed goes to the end of the line, up to `retries` times. After that a job that passed
    before (the control) is scored once more: if it passes again, the failure is the genome's own, which is given up; if
    it does not, the machine is ill and the run stops.
    """

    def __init__(self, retries: int) -> None:
        self.retries = retries
        self._line: deque[int] = deque()
        self._jobs: dict[int, Job] = {}
        self._failures: dict[int, list[str]] = {}
        self._passed: Job | None = None  # the last one that was scored
        self._controls: dict[int, int] = {}  # ticket of a control: the ticket that it is for
        self._waiting: list[int] = []  # for a first job to pass, which can be their control
        self._next = 0

    def add(self, job: Job) -> int:
        """A ticket for a new job, which comes last."""
        self._next += 1
        self._jobs[self._next] = job
        self._line.append(self._next)
        return self._next

    def take(self) -> tuple[int, Job] | None:
        """The next open job; it is in progress until it has passed or failed."""
        if not self._line:
            return None
        ticket = self._line.popleft()
        return ticket, self._jobs[ticket]

    def put_back(self, ticket: int) -> None:
        """A job that was taken and not begun is the next open one."""
        self._line.appendleft(ticket)

    def upcoming(self, count: int) -> list[Job]:
        """The first `count` jobs that are open, which stay so."""
        return [self._jobs[ticket] for ticket in itertools.islice(self._line, count)]

    @property
    def waiting(self) -> int:
        """How many jobs are open that nobody has taken."""
        return len(self._line)

    def job(self, ticket: int) -> Job:
        """The job of a ticket that has not ended."""
        return self._jobs[ticket]

    @property
    def in_progress(self) -> bool:
        """Whether there are jobs that have not ended."""
        return bool(self._jobs)

    def passed(self, ticket: int, evaluation: Evaluation) -> tuple[int, Evaluation]:
        """A job was scored: which ticket has which evaluation by that."""
        job = self._jobs.pop(ticket)
        if ticket in self._controls:
            doubtful = self._controls.pop(ticket)
            del self._jobs[doubtful]
            reasons = self._failures.pop(doubtful)
            error = f"given up after {len(reasons)} attempts, while others were scored: {reasons[-1]}"
            return doubtful, Evaluation({}, error=error, given_up=True)
        self._failures.pop(ticket, None)
        self._passed = job
        for doubtful in self._waiting:
            self._doubt(doubtful)
        self._waiting = []
        return ticket, evaluation

    def failed(self, ticket: int, reason: str) -> None:
        """The machine failed a job: it is tried again. Raises MachineError where that is no use."""
        if ticket in self._controls:
            failures = [*self._failures[self._controls[ticket]], reason]
            raise MachineError(
                f"the machine fails jobs that it could do before: {reason} ({len(failures)} attempts, the last with a "
                "recipe that had been scored). All scores so far are kept; give the same command again when it is well"
            )
        reasons = self._failures.setdefault(ticket, [])
        reasons.append(reason)
        if len(reasons) <= self.retries:
            logger.warning("%s; the recipe is tried again (%d of %d)", reason, len(reasons), self.retries)
            self._line.append(ticket)
            return
        running = set(self._jobs) - {ticket, *self._line, *self._waiting}
        if self._passed is None and running and len(self._waiting) < PATIENCE:
            self._waiting.append(ticket)
            return
        if self._passed is None:
            raise MachineError(
                f"no recipe could be scored, {len(reasons)} attempts failed for reasons of the machine: {reason}. All "
                "scores so far are kept; give the same command again when it is well"
            )
        self._doubt(ticket)

    def _doubt(self, ticket: int) -> None:
        """Have a recipe scored that was scored before, to see whose fault the failures of this one are."""
        reason = self._failures[ticket][-1]
        logger.warning("%s; a recipe that was scored before is scored once more, to see whose fault it is", reason)
        assert self._passed is not None
        control = self.add(self._passed)
        self._controls[control] = ticket
        self._line.rotate(1)  # first in line
