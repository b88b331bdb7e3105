"""What the workers of an executor do and did: who is at which job since when, and who has died of what."""

import time
from collections import deque
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Turn:
    """A worker's time at a job, or its death. Times are seconds since 1970, as the command's process sees them.

    ticket: of the job, None where a worker without one died. outcome: scored; lost, where the machine failed; died.
    reason: why, unless it was scored.
    """

    worker: int
    where: str
    ticket: int | None
    began: float
    ended: float
    outcome: Literal["scored", "lost", "died"]
    reason: str = ""


class Watch:
    """Notes turns as they end; whoever keeps them takes them away."""

    def __init__(self) -> None:
        self.open: dict[int, tuple[int, str, float]] = {}  # by worker: ticket, where, since when
        self._ended: deque[Turn] = deque()

    def begins(self, worker: int, where: str, ticket: int) -> None:
        """A worker is given a job."""
        self.open[worker] = (ticket, where, time.time())

    def ends(self, worker: int, outcome: Literal["scored", "lost"], reason: str = "") -> None:
        """It is at it no more."""
        if worker in self.open:
            ticket, where, began = self.open.pop(worker)
            self._ended.append(Turn(worker, where, ticket, began, time.time(), outcome, reason))

    def died(self, worker: int, where: str, reason: str) -> None:
        """It has ended, at a job or not."""
        now = time.time()
        ticket, _, began = self.open.pop(worker, (None, where, now))
        self._ended.append(Turn(worker, where, ticket, began, now, "died", reason))

    def take(self) -> list[Turn]:
        """The turns that have ended since this was last asked."""
        taken = list(self._ended)
        self._ended.clear()
        return taken
