"""Which jobs take much longer than others of their kind have, so that a second worker may be given them."""

import statistics
import time
from array import array
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field

from evohydra.scoring.job import Job

ENOUGH = 3  # jobs of a kind that have ended, for their median to say something


@dataclass
class Stragglers:
    """The open jobs by ticket, and the seconds of those that have ended, by kind.

    A job is slow when it takes `factor` times the median of its kind; with None no job ever is.
    """

    factor: float | None
    _seconds: dict[Hashable, "array[float]"] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    _open: dict[int, tuple[Hashable, float]] = field(default_factory=dict)

    def begins(self, ticket: int, job: Job) -> None:
        """A worker begins with a job."""
        self._open[ticket] = (_kind(job), time.monotonic())

    def ends(self, ticket: int, *, passed: bool) -> None:
        """It has ended; only the seconds of one that was scored count."""
        kind, since = self._open.pop(ticket)
        if passed and self.factor is not None:
            self._seconds[kind].append(time.monotonic() - since)

    def slow(self) -> list[int]:
        """The tickets of slow jobs, the slowest first."""
        if self.factor is None:
            return []
        now, found = time.monotonic(), []
        for ticket, (kind, since) in self._open.items():
            known = self._seconds.get(kind, ())
            if len(known) >= ENOUGH and now - since > self.factor * statistics.median(known):
                found.append((now - since, ticket))
        return [ticket for _, ticket in sorted(found, reverse=True)]


def _kind(job: Job) -> Hashable:
    """What jobs have in common that take about as long: as many examples of the same split."""
    sizes = None if job.examples is None else sum(len(chosen) for chosen in job.examples.values())
    return job.split, sizes, None if job.part is None else job.part[1]
