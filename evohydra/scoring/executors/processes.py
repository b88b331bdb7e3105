"""Workers in processes of their own on this machine: each with its own model, and its own threads or GPU."""

import logging
import multiprocessing
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from evohydra.checks import CountOrAuto, Natural
from evohydra.scoring.executors import MakeWorker, Result
from evohydra.scoring.executors.attempts import Attempts
from evohydra.scoring.executors.patience import Patience
from evohydra.scoring.executors.resources import Places, places
from evohydra.scoring.executors.serving import Kind, evaluate, serve
from evohydra.scoring.job import Evaluation, Job, MachineError

logger = logging.getLogger(__name__)
TO_END = 10.0  # seconds that a worker has to end by itself
LOOK = 60.0  # seconds between looks at workers that say nothing


@dataclass
class _Seat:
    """A worker's process, and which ticket it is at (None: none, or it is being made)."""

    number: int
    process: SpawnProcess
    connection: Connection
    ready: bool = False
    ticket: int | None = field(default=None)


class Processes:
    """`workers` processes of this machine; "auto": one for each GPU, or what cores and memory allow.

    threads: CPU threads of each, "auto" shares the cores. A worker that dies (killed, out of memory) is replaced, and
    its job is tried again up to `retries` times.
    """

    def __init__(
        self, *, make: MakeWorker, workers: CountOrAuto = "auto", threads: CountOrAuto = "auto", retries: Natural = 2,
        worker_bytes: int = 0,
    ) -> None:  # fmt: skip
        self._attempts = Attempts(retries)
        self._places: Places = places(workers, threads, worker_bytes)
        self.workers = self._places.workers
        self._make = pickle.dumps(make)
        self._context = multiprocessing.get_context("spawn")
        self._seats: list[_Seat] = []
        self._deaths = 0  # of workers that were never ready, in a row
        self._patience = Patience()

    def _begin(self) -> None:
        """Start the workers, when they are needed for the first time."""
        while len(self._seats) < self.workers:
            self._seats.append(self._started(len(self._seats)))

    def _started(self, number: int) -> _Seat:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve,
            args=(theirs, self._make, self._places.environment(number), self._places.threads),
            name=f"evohydra-worker-{number}",
        )
        with _holding_interrupts():
            process.start()
        theirs.close()
        return _Seat(number, process, ours)

    def submit(self, jobs: Sequence[Job]) -> list[int]:
        """Take jobs; idle workers begin with the first ones."""
        self._begin()
        tickets = [self._attempts.add(job) for job in jobs]
        self._hand_out()
        return tickets

    def _hand_out(self) -> None:
        for seat in self._seats:
            if seat.ready and seat.ticket is None and (taken := self._attempts.take()) is not None:
                ticket, job = taken
                seat.ticket = ticket
                self._patience.begins(seat.number)
                self._send(seat, evaluate, (job,))

    def _send(self, seat: _Seat, task: Callable[..., object], given: tuple[object, ...]) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # of a dead one, whose end is heard of next
            seat.connection.send((task, given))

    def completed(self) -> tuple[int, Evaluation]:
        """The next ticket whose job is scored; see `Executor.completed`."""
        while True:
            assert self._attempts.in_progress, "no job is open"
            self._hand_out()
            for seat, kind, content in self._heard():
                ticket, seat.ticket = seat.ticket, None
                if kind == "ready" or ticket is None:
                    continue
                if kind == "done":
                    self._hand_out()
                    return self._attempts.passed(ticket, content)
                self._attempts.failed(ticket, content)

    def _heard(self) -> list[tuple[_Seat, Kind, Any]]:
        """What the first worker to say something says; a dead one is replaced, its job has failed."""
        by_connection = {seat.connection: seat for seat in self._seats}
        while not (heard := wait([*by_connection], LOOK)):
            self._name_silent()
        seat = by_connection[heard[0]]  # type: ignore[index]
        self._patience.ends(seat.number)
        try:
            kind, content = pickle.loads(seat.connection.recv_bytes())
        except (EOFError, OSError):
            return [(seat, "machine", self._replaced(seat))]
        if kind == "raised":
            raise content
        if kind == "sick":
            self._replaced(seat)
            return [(seat, "machine", content)]
        if kind == "ready":
            seat.ready, self._deaths = True, 0
        return [(seat, kind, content)]

    def _name_silent(self) -> None:
        pids = {seat.number: seat.process.pid for seat in self._seats}
        for number, seconds, longest in self._patience.silent():
            logger.warning(
                "worker %s (process %d) has been at one job for %.0f s, the longest before took %.0f s. If it hangs, "
                "kill -9 %d has its job tried again on a new worker",
                number, pids[number], seconds, longest, pids[number],
            )  # fmt: skip

    def _replaced(self, dead: _Seat) -> str:
        """Start another worker in the place of a dead one; why that one ended."""
        dead.process.join(TO_END)
        dead.connection.close()
        code = dead.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        reason = f"worker {dead.number} (process {dead.process.pid}) died: {how}"
        if not dead.ready:
            self._deaths += 1
            if self._deaths > self._attempts.retries:
                raise MachineError(f"{reason}, before it was ready, {self._deaths} times in a row")
        if dead.ticket is None:
            logger.warning("%s; another one is started", reason)
        fresh = self._started(dead.number)
        dead.process, dead.connection, dead.ready = fresh.process, fresh.connection, False
        return reason

    def ask(self, task: Callable[..., Result], *given: object) -> Result:
        """`task(worker, *given)` on the first worker that is ready; where that one dies, on another."""
        assert not self._attempts.in_progress, "jobs are open"
        self._begin()
        for _ in range(self._attempts.retries + 1):
            while not (ready := [seat for seat in self._seats if seat.ready]):
                self._heard()
            asked = ready[0]
            self._send(asked, task, given)
            kind: Kind = "ready"
            while kind == "ready":
                seat, kind, content = self._heard()[0]
                if seat is not asked:
                    kind = "ready"
            if kind == "done":
                result: Result = content
                return result
            logger.warning("%s", content)
        raise MachineError(f"{content}, {self._attempts.retries + 1} times")

    def close(self) -> None:
        """End all workers: those that work on something are stopped."""
        for seat in self._seats:
            seat.connection.close()
            if seat.ticket is not None or not seat.ready:
                seat.process.terminate()
        for seat in self._seats:
            seat.process.join(TO_END)
            if seat.process.is_alive():
                seat.process.kill()
                seat.process.join()
        self._seats = []


@contextmanager
def _holding_interrupts() -> Iterator[None]:
    """SIGINT (Ctrl-C) is held back until the end, and from processes that are started meanwhile for good."""
    if sys.platform == "win32":  # it has no such masks
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
