"""Trackers: where a run is shown besides its own directory."""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from evohydra.searching.ledger import Record

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Receives a run as it goes.

    A yaml in conf/tracker is `_partial_`: the run adds its name, directory, config, group (its sweep, or None),
    strategy (what it is called in comparisons), and differing (the overrides that tell jobs of the sweep apart).
    """

    def genome(self, record: Record) -> None:
        """One genome of the search, in order; a resumed run repeats those on file."""
        ...

    def finish(self, summary: Mapping[str, object], figures: Mapping[str, Path], winner: Path) -> None:
        """The end of a run: its summary, its pictures (or HTML pages), and the directory of the merged model."""
        ...

    def close(self, *, failed: bool) -> None:
        """The run is over, well or badly."""
        ...


class Guarded:
    """A tracker whose failures are reported once, and never stop a search.

    It is made when a run has been accepted: one that goes on is refused while its genomes on file are repeated, and the
    tracker hears of those, `replayed` in number, when all have been.
    """

    def __init__(self, make: Callable[[], Tracker], replayed: int = 0) -> None:
        self._make = make
        self._tracker: Tracker | None = None
        self._failed = False
        self._waiting: deque[Record] | None = deque()
        self._replayed = replayed
        if not replayed:
            self._open()

    def _open(self) -> None:
        """Make the tracker, and tell it what was repeated."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._try(lambda: setattr(self, "_tracker", self._make()))
            while waiting:  # each is let go: it may hold all its genes once it was looked at
                self.genome(waiting.popleft())

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # whatever a tracking service does, the search goes on
            logger.warning("the tracker failed and is left out from here on: %s: %s", type(error).__name__, error)
            self._failed = True

    def genome(self, record: Record) -> None:
        """Pass on one genome."""
        if self._waiting is not None:
            self._waiting.append(record)
            if len(self._waiting) >= self._replayed:
                self._open()
            return
        if (tracker := self._tracker) is not None and not self._failed:
            self._try(lambda: tracker.genome(record))

    def finish(self, summary: Mapping[str, object], figures: Mapping[str, Path], winner: Path) -> None:
        """Pass on the end of a run."""
        self._open()
        if (tracker := self._tracker) is not None and not self._failed:
            self._try(lambda: tracker.finish(summary, figures, winner))

    def close(self, *, failed: bool) -> None:
        """Pass on that the run is over."""
        if (tracker := self._tracker) is not None:
            self._try(lambda: tracker.close(failed=failed))
