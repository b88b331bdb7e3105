"""Says which worker has been silent for long, measured by what jobs have taken so far."""

import time

LEAST = 300.0  # seconds: nobody is called silent before
TIMES = 20  # as long as the longest job


class Patience:
    """How long workers have been at their jobs, each under a key of its own."""

    def __init__(self, least: float = LEAST) -> None:
        self._least, self._longest = least, 0.0
        self._since: dict[int, float] = {}
        self._said: set[int] = set()

    def begins(self, key: int) -> None:
        """A job begins."""
        self._since[key] = time.monotonic()

    def ends(self, key: int) -> None:
        """It has ended, in whatever way."""
        self._said.discard(key)
        if key in self._since:
            self._longest = max(self._longest, time.monotonic() - self._since.pop(key))

    def overdue(self, limit: float) -> list[tuple[int, float]]:
        """Who has been at a job for more than `limit` seconds, and for how many."""
        now = time.monotonic()
        return [(key, now - since) for key, since in self._since.items() if now - since > limit]

    def silent(self) -> list[tuple[int, float, float]]:
        """Who has been at a job too long and was not named for it yet; its seconds, and those of the longest before."""
        limit = max(self._least, TIMES * self._longest)
        took = {key: time.monotonic() - since for key, since in self._since.items() if key not in self._said}
        found = [(key, seconds, self._longest) for key, seconds in took.items() if seconds > limit]
        self._said.update(key for key, *_ in found)
        return found
