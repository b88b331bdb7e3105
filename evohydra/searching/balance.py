"""How jobs are laid on workers so that these end together: longest first, the last ones cut. Changes no score."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from evohydra.scoring.job import Evaluation, Job

CHEAP = 0.1  # of the seconds of an evaluation, for a merge to be worth doing twice


@dataclass
class Balance:
    """What jobs have taken so far, in seconds, all together and by kind (equal split and number of examples)."""

    merging: float = 0.0
    evaluating: float = 0.0
    _kinds: dict[Hashable, tuple[float, int]] = field(default_factory=dict)  # seconds, and of how many jobs

    def saw(self, job: Job, evaluation: Evaluation) -> None:
        """A job was scored."""
        merge, evaluate = (evaluation.seconds.get(part, 0.0) for part in ("merge", "evaluate"))
        self.merging, self.evaluating = self.merging + merge, self.evaluating + evaluate
        seconds, count = self._kinds.get(_kind(job), (0.0, 0))
        self._kinds[_kind(job)] = seconds + merge + evaluate, count + 1

    def order(self, jobs: Sequence[Job]) -> list[int]:
        """The places of jobs, the longest first; kinds that are not known yet come before all others."""
        return sorted(range(len(jobs)), key=lambda place: -self._expected(jobs[place]))

    def _expected(self, job: Job) -> float:
        seconds, count = self._kinds.get(_kind(job), (math.inf, 1))
        return seconds / count

    def shares(self, jobs: Sequence[Job], workers: int) -> list[int]:
        """Into how many parts each of one job or more is cut, in the order in which they are handed out.

        Each part merges the model anew: where that is not known to be cheap, only fewer jobs than workers are cut. Else
        the last jobs are halved, and those that would leave workers idle at the end are cut into as many parts as make
        whole rounds of all workers. So is, among more than two jobs a worker, each that takes more than half of a
        worker's share of all. A part still takes longer than its merge. Example: five equal jobs on four workers are
        1, 2, 2, 2 and 4 parts.
        """
        count = len(jobs)
        if not 0 < self.merging <= CHEAP * self.evaluating:
            return [workers // count if count < workers else 1] * count
        most, left = int(self.evaluating / self.merging), count % workers
        rounds = min(workers // math.gcd(left, workers), most)
        if workers == 1:
            return [1] * count
        if count < workers:
            return [max(rounds, workers // count)] * count
        equal = [1] * (count - workers) + [2] * (workers - left) + [max(2, rounds)] * left
        expected = [self._expected(job) for job in jobs]
        share = sum(expected) / workers
        long = [2 * each > share and math.isfinite(share) and count > 2 * workers for each in expected]
        return [max(parts, min(workers, most)) if cut else parts for parts, cut in zip(equal, long, strict=True)]


def _kind(job: Job) -> Hashable:
    return job.split, None if job.examples is None else sum(map(len, job.examples.values()))
