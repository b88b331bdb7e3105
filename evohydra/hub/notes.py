"""Small notes in evohydra's cache. They save work and are needed without a network; without them all else goes on."""

import logging
from collections.abc import Mapping
from pathlib import Path

from evohydra.files import write_json

logger = logging.getLogger(__name__)


def write_note(file: Path, content: Mapping[str, object]) -> None:
    """Keep `content`; a warning where the cache cannot be written to."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, content)
    except OSError as error:
        logger.warning("could not keep a note in evohydra's cache (%s); EVOHYDRA_CACHE chooses another place", error)
