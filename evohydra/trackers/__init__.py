"""Trackers: where a run is shown besides its own directory."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from evohydra.search.ledger import Record

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
    """A tracker whose failures are reported once, and never stop a search."""

    def __init__(self, make: Callable[[], Tracker]) -> None:
        self._tracker: Tracker | None = None
        self._failed = False
        self._try(lambda: setattr(self, "_tracker", make()))

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # whatever a tracking service does, the search goes on
            logger.warning("the tracker failed and is left out from here on: %s: %s", type(error).__name__, error)
            self._failed = True

    def genome(self, record: Record) -> None:
        """Pass on one genome."""
        if (tracker := self._tracker) is not None and not self._failed:
            self._try(lambda: tracker.genome(record))

    def finish(self, summary: Mapping[str, object], figures: Mapping[str, Path], winner: Path) -> None:
        """Pass on the end of a run."""
        if (tracker := self._tracker) is not None and not self._failed:
            self._try(lambda: tracker.finish(summary, figures, winner))

    def close(self, *, failed: bool) -> None:
        """Pass on that the run is over."""
        if (tracker := self._tracker) is not None:
            self._try(lambda: tracker.close(failed=failed))
