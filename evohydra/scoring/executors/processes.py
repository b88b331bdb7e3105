"""Workers in processes of their own on this machine: each with its own model, and its own threads or GPU."""

import multiprocessing
import os
import pickle
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Annotated

from annotated_types import Gt

from evohydra.checks import CountOrAuto, Natural, Positive
from evohydra.scoring.executors import MakeWorker
from evohydra.scoring.executors.elsewhere import OtherProcess, begun, versions_in
from evohydra.scoring.executors.pool import LOOK, Pool, Said, Seat, holding_interrupts
from evohydra.scoring.executors.resources import Places, places
from evohydra.scoring.executors.serving import serve

KILLED = -9  # exit code of a process that SIGKILL has ended
TO_END = 10.0  # seconds that a worker has to end by itself
OFTEN = 3.0  # seconds between looks at workers, where stragglers or a limit are looked for
IMPORTED = ("evohydra.", "transformers.models.")  # what is imported for workers, as far as this process has it


@dataclass
class _Process(Seat):
    """A worker's process."""

    process: BaseProcess | OtherProcess
    connection: Connection


class Processes(Pool[_Process]):
    """`workers` processes of this machine; "auto": one for each GPU, or what cores and memory allow.

    threads: CPU threads of each, "auto" shares the cores. A worker that dies (killed, out of memory) is replaced, and
    its job is tried again up to `retries` times. straggler, limit, together: see `Pool`. python: of another
    environment, in which workers run; None: this one.
    """

    def __init__(
        self,
        *,
        make: MakeWorker,
        workers: CountOrAuto = "auto",
        threads: CountOrAuto = "auto",
        retries: Natural = 2,
        straggler: Annotated[float, Gt(1)] | None = None,
        limit: Positive | None = None,
        python: str | None = None,
        worker_bytes: int = 0,
        together: int = 1,
    ) -> None:
        super().__init__(retries, straggler, limit, together)
        if python is not None:
            versions_in(python)  # which it is looked at for
        self._python = python
        self._look = LOOK if straggler is None and limit is None else OFTEN
        self._places: Places = places(workers, threads, worker_bytes)
        self.workers = self._places.workers
        self._make = pickle.dumps(make)
        self._context = _context(self._places)

    def _begin(self) -> None:
        for seat in self._seats:
            if seat.free and not seat.process.is_alive():
                self._replace(seat, _end_of(seat))
        while len(self._seats) < self.workers:
            self._seats.append(self._started(len(self._seats)))

    def _started(self, number: int) -> _Process:
        environment = {**os.environ, **self._places.environment(number)}
        process: BaseProcess | OtherProcess
        if self._python is not None:
            with holding_interrupts():
                process, ours = begun(self._python, self._make, environment, self._places.threads)
            return _Process(number, process, ours, where=f"process {process.pid}")
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve,
            args=(theirs, self._make, environment, self._places.threads),
            name=f"evohydra-worker-{number}",
        )
        with holding_interrupts():
            process.start()
        theirs.close()
        return _Process(number, process, ours, where=f"process {process.pid}")

    def _send(self, seat: _Process, task: Callable[..., object], given: tuple[object, ...]) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # of a dead one, whose end is heard of next
            seat.connection.send((task, given))

    def _said(self) -> Said[_Process]:
        by_connection = {seat.connection: seat for seat in self._seats}
        until = time.monotonic() + self._look
        while not (heard := wait([*by_connection], max(0.0, until - time.monotonic()))):
            self._look_at_workers()
            until = time.monotonic() + self._look
        seat = by_connection[heard[0]]  # type: ignore[index]
        try:
            kind, content = pickle.loads(seat.connection.recv_bytes())
        except (EOFError, OSError):
            return seat, "died", _end_of(seat)
        return seat, kind, content

    def _look_at_workers(self) -> None:
        """Name those that are silent, end those that take too long, and help those that are slow."""
        self._name_silent()
        self._end_overdue()
        self._help_stragglers()

    def _end(self, seat: _Process) -> None:
        seat.process.kill()

    def _restart(self, seat: _Process) -> None:
        seat.process.join(TO_END)
        seat.connection.close()
        fresh = self._started(seat.number)
        seat.process, seat.connection, seat.where = fresh.process, fresh.connection, fresh.where

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


def _context(places: Places) -> ForkServerContext | SpawnContext:
    """How processes begin. On Linux without GPUs they part from one that has imported what this process has imported.

    So that is imported once, and not by each worker. A process must not part from one that has looked at a GPU.
    """
    if sys.platform != "linux" or places.gpus:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([name for name in sys.modules if name.startswith(IMPORTED)])
    return context


def _end_of(dead: _Process) -> str:
    """How a worker's process has ended, in words."""
    dead.process.join(TO_END)
    code = dead.process.exitcode
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    if code == KILLED:
        how += " (by hand, or by the system where memory is short)"
    return f"worker {dead.number} ({dead.where}) died: {how}"
