"""The times of workers: lines of workers.jsonl, and what they sum up to. No score depends on them."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evohydra.files import Plain, check_plain_file
from evohydra.scoring.executors.watch import Turn
from evohydra.scoring.job import Evaluation

WORKERS = "workers.jsonl"


@dataclass(frozen=True)
class Shares:
    """How so many workers have spent their time, each part between 0 and 1; the rest of it they waited."""

    workers: int
    merging: float
    scoring: float

    @property
    def waiting(self) -> float:
        """The rest."""
        return max(0.0, 1.0 - self.merging - self.scoring)


class WorkerTimes:
    """Writes a line for each session of the run, each turn of a worker and each death.

    Lines are not forced to the disk one by one, so that they cost microseconds: a killed command loses none, a power
    cut may lose the last ones. A torn last line is cut off.
    """

    def __init__(self, path: Path) -> None:
        if path.exists():
            check_plain_file(path)
        self._file = path.open("a+b", buffering=0)
        self._file.seek(0)
        whole = self._file.read().rfind(b"\n") + 1
        self._file.truncate(whole)
        self._first: dict[int, float] = {}  # by worker: when it got its first job
        self._merging = self._scoring = 0.0
        self.deaths: dict[int, tuple[int, str]] = {}  # by worker: how many, and the reason of the last one
        self._line({"session": round(time.time(), 3)})

    def add(self, turn: Turn, job: str, evaluation: Evaluation | None) -> None:
        """A turn at `job`, in words, with what it gave."""
        self._first.setdefault(turn.worker, turn.began)
        if turn.outcome == "died":
            self.deaths[turn.worker] = self.deaths.get(turn.worker, (0, ""))[0] + 1, turn.reason
        seconds = evaluation.seconds if evaluation else {}
        merge, score = seconds.get("merge", 0.0), seconds.get("evaluate", 0.0)
        self._merging, self._scoring = self._merging + merge, self._scoring + score
        entry: dict[str, object] = {
            "worker": turn.worker,
            "where": turn.where,
            "job": job,
            "outcome": turn.outcome,
            "began": round(turn.began, 3),
            "ended": round(turn.ended, 3),
            "merge": merge,
            "score": score,
        }
        self._line({**entry, **({"reason": turn.reason} if turn.reason else {})})

    def shares(self) -> Shares | None:
        """Of this session: of each worker from its first job until now; None before there is one."""
        if not self._first:
            return None
        now = time.time()
        whole = max(1e-9, sum(now - first for first in self._first.values()))
        return Shares(len(self._first), min(1.0, self._merging / whole), min(1.0, self._scoring / whole))

    def _line(self, entry: Plain) -> None:
        self._file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        """Say when the session ended, which a killed one does not."""
        self._line({"end": round(time.time(), 3)})
        self._file.close()


def sessions(path: Path) -> list[list[Plain]]:
    """The turns of each session, [session][turn] in order of their ends; lines that are no JSON are left out."""
    found: list[list[Plain]] = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if "session" in entry:
            found.append([])
        elif "worker" in entry and found:
            found[-1].append(entry)
    return [each for each in found if each]


def table(turns: Sequence[Sequence[Plain]]) -> list[tuple[int, int, float, float, float, int]]:
    """For each worker, over all sessions: jobs scored; seconds of merging, scoring and waiting; deaths.

    A worker waits from the first to the last moment of a session's turns, whenever it neither merges nor scores.
    """
    rows: dict[int, list[float]] = {}
    for session in turns:
        first, last = min(each["began"] for each in session), max(each["ended"] for each in session)
        for worker in sorted({each["worker"] for each in session}):
            own = [each for each in session if each["worker"] == worker]
            merge, score = sum(each["merge"] for each in own), sum(each["score"] for each in own)
            scored, deaths = (sum(each["outcome"] == outcome for each in own) for outcome in ("scored", "died"))
            here = (scored, merge, score, max(0.0, last - first - merge - score), deaths)
            before = rows.get(worker, [0.0] * len(here))
            rows[worker] = [one + other for one, other in zip(before, here, strict=True)]
    return [(worker, int(n), m, s, w, int(d)) for worker, (n, m, s, w, d) in sorted(rows.items())]
