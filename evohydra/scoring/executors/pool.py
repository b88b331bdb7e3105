"""What executors with several workers share: who works at which job, who has died, and whom to ask."""

import logging
import signal
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from evohydra.scoring.executors import Result
from evohydra.scoring.executors.attempts import Attempts
from evohydra.scoring.executors.parcels import Packer
from evohydra.scoring.executors.patience import Patience
from evohydra.scoring.executors.serving import Kind, evaluate
from evohydra.scoring.executors.stragglers import Stragglers
from evohydra.scoring.executors.watch import Watch
from evohydra.scoring.job import Evaluation, Job, MachineError

logger = logging.getLogger(__name__)
GO_ON = "All scores so far are kept; give the same command again when the machine is well"
LOOK = 60.0  # seconds between looks at workers that say nothing


@dataclass
class Seat:
    """The place of a worker, which another one takes when it dies.

    where: its process, in words. ready: it is made. asked: an answer of it is still to come. ticket: of the job that it
    is at. line: tickets and jobs that it gets next. layouts: of recipes, that it has kept (see `Packer`).
    """

    number: int
    where: str = field(default="not placed yet", kw_only=True)
    ready: bool = field(default=False, kw_only=True)
    asked: bool = field(default=True, kw_only=True)  # first of all whether it is made
    ticket: int | None = field(default=None, kw_only=True)
    line: deque[tuple[int, Job]] = field(default_factory=deque, kw_only=True)
    layouts: dict[int, int] = field(default_factory=dict, kw_only=True)

    @property
    def free(self) -> bool:
        """Whether it can be asked something."""
        return self.ready and not self.asked


AnySeat = TypeVar("AnySeat", bound=Seat)
Said = tuple[AnySeat, Kind | Literal["died"], Any]  # by which worker, and what comes with it, see `Kind`


class Pool(ABC, Generic[AnySeat]):
    """Workers outside of this process. A subclass says how one is started, spoken to and heard.

    straggler: a job that takes so many times the median of its kind is given to a second worker; None: none is.
    limit: the seconds that a job may take, after which its worker is ended like one that hangs; None: any.
    together: how many jobs a worker takes at once, which it is told of; it is sent, and answers, one after the other.
    """

    def __init__(
        self, retries: int, straggler: float | None = None, limit: float | None = None, together: int = 1
    ) -> None:
        self._limit, self._together = limit, together
        self._attempts = Attempts(retries)
        self._packer = Packer()
        self.watch = Watch()
        self._seats: list[AnySeat] = []
        self._deaths = 0  # of workers that were never ready, in a row
        self._patience = Patience()
        self._stragglers = Stragglers(straggler)

    @abstractmethod
    def _begin(self) -> None:
        """Start the workers that are wanted and not there."""

    @abstractmethod
    def _send(self, seat: AnySeat, task: Callable[..., object], given: tuple[object, ...]) -> None:
        """Let a worker carry out `task(worker, *given)`; of a dead one nothing is raised: its end is heard of next."""

    @abstractmethod
    def _said(self) -> "Said[AnySeat]":
        """What the first worker to say something says; waits for it. One that has died: the reason."""

    @abstractmethod
    def _restart(self, seat: AnySeat) -> None:
        """Start another worker in the place of one that is dead or sick."""

    @abstractmethod
    def _end(self, seat: AnySeat) -> None:
        """End a worker that may hang, at once; its end is heard of next."""

    def submit(self, jobs: Sequence[Job]) -> list[int]:
        """Take jobs; idle workers begin with the first ones."""
        self._begin()
        tickets = [self._attempts.add(job) for job in jobs]
        self._hand_out()
        return tickets

    def _hand_out(self) -> None:
        for seat in self._seats:
            if seat.free and (taken := self._next(seat)) is not None:
                ticket, job = taken
                self._stragglers.begins(ticket, job)
                self._give(seat, ticket, job)

    def _next(self, seat: AnySeat) -> tuple[int, Job] | None:
        """What a worker does next: of what it has taken; of what is open, its share; of what another one has taken."""
        if not seat.line:
            share = min(self._together, -(-self._attempts.waiting // max(1, len(self._seats))))
            seat.line.extend(taken for _ in range(share) if (taken := self._attempts.take()) is not None)
        if seat.line:
            return seat.line.popleft()
        longest = max(self._seats, key=lambda each: len(each.line))
        return longest.line.pop() if longest.line else None

    def _give(self, seat: AnySeat, ticket: int, job: Job) -> None:
        seat.ticket, seat.asked = ticket, True
        self._patience.begins(seat.number)
        self.watch.begins(seat.number, seat.where, ticket)
        jobs = [job, *(each for _, each in seat.line)]
        self._send(seat, evaluate, tuple(self._packer.pack(each, seat.layouts) for each in jobs))

    def _help_stragglers(self) -> None:
        """Give slow jobs to free workers, too, where no other job is open: the first answer counts."""
        self._hand_out()
        for ticket in self._stragglers.slow():
            at_it = [seat for seat in self._seats if seat.ticket == ticket]
            free = next((seat for seat in self._seats if seat.free), None)
            if free is not None and len(at_it) == 1:
                logger.warning(
                    "worker %d (%s) is slow; worker %d does its job, too", at_it[0].number, at_it[0].where, free.number
                )
                self._give(free, ticket, self._attempts.job(ticket))

    def completed(self) -> tuple[int, Evaluation]:
        """The next ticket whose job is scored; see `Executor.completed`."""
        while True:
            assert self._attempts.in_progress, "no job is open"
            self._hand_out()
            seat, kind, content = self._heard()
            ticket, seat.ticket = seat.ticket, None
            if kind == "ready" or ticket is None:
                continue
            others = [each for each in self._seats if each.ticket == ticket]
            if kind != "done" and others:
                logger.warning("%s; another worker is at the same job", content)
                continue
            self._stragglers.ends(ticket, passed=kind == "done")
            if kind == "done":
                for each in others:
                    each.ticket = None  # what it still says of that job is not heard
                self._hand_out()
                return self._attempts.passed(ticket, content)
            self._attempts.failed(ticket, content)

    def _heard(self) -> "tuple[AnySeat, Kind, Any]":
        """What the first worker to say something says; a dead one is replaced, its job has failed."""
        seat, kind, content = self._said()
        self._patience.ends(seat.number)
        seat.asked = False
        if kind in ("done", "machine"):
            self.watch.ends(seat.number, "scored" if kind == "done" else "lost", content if kind == "machine" else "")
        if kind == "raised":
            raise content
        if kind in ("died", "sick"):
            self.watch.died(seat.number, seat.where, content)
            self._replace(seat, content)
            return seat, "machine", content
        if kind == "ready":
            seat.ready, self._deaths = True, 0
        assert kind != "died"
        return seat, kind, content

    def _end_overdue(self) -> None:
        """End the workers that are at a job for longer than one may take: it is tried again, as that of a dead one."""
        for number, seconds in self._patience.overdue(self._limit) if self._limit is not None else ():
            self._patience.ends(number)
            for seat in [seat for seat in self._seats if seat.number == number]:
                logger.warning(
                    "worker %d (%s) has been at one job for %.0f s, more than executor.limit=%g: it is ended",
                    number,
                    seat.where,
                    seconds,
                    self._limit,
                )
                self._end(seat)

    def _name_silent(self) -> None:
        """Say which workers have been at one job much longer than any took before."""
        places = {seat.number: seat.where for seat in self._seats}
        for number, seconds, longest in self._patience.silent():
            logger.warning(
                "worker %s (%s) has been at one job for %.0f s, the longest before took %.0f s. If it hangs, "
                "end that process with kill -9: its job is then tried again on a new worker (so does executor.limit)",
                number,
                places.get(number, "gone"),
                seconds,
                longest,
            )

    def _replace(self, seat: AnySeat, reason: str) -> None:
        """Start another worker in the place of one that has ended; MachineError where they end again and again."""
        if not seat.ready:
            self._deaths += 1
            if self._deaths > self._attempts.retries:
                raise MachineError(f"{reason}, before it was ready, {self._deaths} times in a row. {GO_ON}")
        if seat.ticket is None:
            logger.warning("%s; another one is started", reason)
        while seat.line:
            self._attempts.put_back(seat.line.pop()[0])
        seat.ready, seat.asked, seat.layouts = False, True, {}
        self._restart(seat)

    def ask(self, task: Callable[..., Result], *given: object) -> Result:
        """`task(worker, *given)` on the first worker that is ready; where that one dies, on another."""
        assert not self._attempts.in_progress, "jobs are open"
        self._begin()
        for _ in range(self._attempts.retries + 1):
            while not (free := [seat for seat in self._seats if seat.free]):
                self._heard()
            asked = free[0]
            asked.asked = True
            self._send(asked, task, given)
            kind: Kind = "ready"
            while kind == "ready":
                seat, kind, content = self._heard()
                if seat is not asked:
                    kind = "ready"
            if kind == "done":
                result: Result = content
                return result
            logger.warning("%s", content)
        raise MachineError(f"{content}, {self._attempts.retries + 1} times. {GO_ON}")


@contextmanager
def holding_interrupts() -> Iterator[None]:
    """SIGINT (Ctrl-C) is held back until the end, and from processes that are started meanwhile for good."""
    if sys.platform == "win32":  # it has no such masks
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
