"""Workers that are silent for long are named, once a job."""

import pytest

from evohydra.scoring.executors import patience
from evohydra.scoring.executors.patience import Patience


def test_a_worker_is_named_when_it_takes_much_longer_than_any_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(patience.time, "monotonic", lambda: now)
    waiting = Patience(least=10.0)
    for begun, ended in [(0.0, 2.0), (2.0, 5.0)]:
        now = begun
        waiting.begins(0)
        now = ended
        waiting.ends(0)
    waiting.begins(0)
    waiting.begins(1)
    now = 5.0 + 60.0
    assert waiting.silent() == []
    now += 1.0
    assert waiting.silent() == [(0, 61.0, 3.0), (1, 61.0, 3.0)]
    assert waiting.silent() == []
    waiting.ends(1)
    waiting.begins(1)
    now += 61.0 * patience.TIMES
    assert waiting.silent() == []  # the longest has become 61 s
    now += 1.0
    assert [worker for worker, *_ in waiting.silent()] == [1]


def test_nobody_is_named_early(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(patience.time, "monotonic", lambda: now)
    waiting = Patience()
    waiting.begins(0)
    now = patience.LEAST
    assert waiting.silent() == []
    waiting.ends(1)  # a worker that was at nothing
