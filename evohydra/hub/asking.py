"""Questions to the hub: asked again where it says that it is busy, and answered by the cache where it cannot be had."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from evohydra.hub.commits import COMMIT
from evohydra.hub.listing import Listing, cached_listing, list_files
from evohydra.hub.messages import busy, explained, gone, hub_errors, switched_off, unreachable

PAUSES = (1.0, 4.0)  # seconds before it is asked again
LONGEST = 30.0  # seconds that the hub may ask to wait for
Answer = TypeVar("Answer")
logger = logging.getLogger(__name__)


def ask(question: Callable[[], Answer]) -> Answer:
    """The answer, asked for again after a pause where the hub is out of order or has too many to answer (5xx, 429)."""
    for pause in PAUSES:
        try:
            return question()
        except hub_errors() as error:
            wait = busy(error)
            if wait is None or wait > LONGEST:
                raise
            time.sleep(max(pause, wait) if pause else 0)
    return question()


def listing_of(repository: str, revision: str | None) -> Listing:
    """What a repository holds, by the hub, or by the cache where the hub does not answer or a commit is gone there.

    Raises SourceError, which says what to do, where neither knows.
    """
    try:
        return ask(lambda: list_files(repository, revision))
    except hub_errors() as error:
        immutable = revision is not None and COMMIT.fullmatch(revision) is not None
        asked = unreachable(error) or (immutable and gone(error))
        known = cached_listing(repository, revision) if asked else None
        if known is None:
            raise explained(repository, revision, error) from error
        if not switched_off(error):
            logger.warning(
                "%s: the hub %s (%s); what is in the local cache is taken, commit %s",
                *(repository, "no longer has it" if gone(error) else "does not answer", type(error).__name__),
                known.commit,
            )
        return known
