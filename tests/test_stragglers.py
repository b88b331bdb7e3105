"""Jobs that take much longer than others of their kind are known."""

import pytest

from evohydra.recipe import Checkpoint
from evohydra.scoring.executors import stragglers
from evohydra.scoring.executors.stragglers import Stragglers
from evohydra.scoring.job import Job

JOB = Job(Checkpoint("one", "-"), "search")
LONG = Job(Checkpoint("one", "-"), "test")


def test_a_job_is_slow_by_the_median_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(stragglers.time, "monotonic", lambda: now)
    known = Stragglers(3.0)
    for ticket, took in enumerate([2.0, 4.0, 100.0]):
        known.begins(ticket, JOB)
        now += took
        assert known.slow() == []  # too few have ended
        known.ends(ticket, passed=True)
    known.begins(7, JOB)
    known.begins(8, LONG)
    now += 12.0
    assert known.slow() == []
    known.begins(9, JOB)
    now += 12.1
    assert known.slow() == [7, 9]
    known.ends(7, passed=False)
    assert known.slow() == [9]


def test_none_is_slow_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(stragglers.time, "monotonic", lambda: now)
    known = Stragglers(None)
    for ticket in range(5):
        known.begins(ticket, JOB)
        known.ends(ticket, passed=True)
    known.begins(9, JOB)
    now = 1e9
    assert known.slow() == []
