"""No tracker: the run's own directory is all there is."""

from collections.abc import Mapping
from pathlib import Path

from evohydra.searching.ledger import Record


class NoTracker:
    """Takes everything and keeps nothing."""

    def __init__(self, **_: object) -> None:
        """Nothing to set up."""

    def genome(self, record: Record) -> None:
        """Nothing."""

    def finish(self, summary: Mapping[str, object], figures: Mapping[str, Path], winner: Path) -> None:
        """Nothing."""

    def close(self, *, failed: bool) -> None:
        """Nothing."""
