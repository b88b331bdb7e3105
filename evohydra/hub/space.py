"""Whether a download has room on the disk."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from evohydra.hub import cache_directory, folder_name, in_words
from evohydra.hub.listing import Listed, Listing
from evohydra.hub.messages import no_space

WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")
logger = logging.getLogger(__name__)


def check_space(listing: Listing, files: Sequence[Listed], more: int, *, say: bool = True) -> None:
    """SourceError where the files that are not there yet, and a conversion of `more` bytes, have no room.

    say: tell in the log what is downloaded.
    """
    import huggingface_hub

    cache = Path(huggingface_hub.constants.HF_HUB_CACHE).expanduser()
    snapshot = cache / folder_name(listing.repository)
    missing = [
        f
        for f in files
        if not (snapshot / "blobs" / f.etag).exists()
        and not (snapshot / "snapshots" / listing.commit / f.path).exists()
    ]
    size = sum(file.size for file in missing)
    what = f"{listing.repository} at {listing.commit}"
    together = _place(cache).stat().st_dev == _place(cache_directory()).stat().st_dev
    for where, wanted in ((cache, size + (more if together else 0)), (cache_directory(), more)):
        free = shutil.disk_usage(_place(where)).free
        if wanted > free:
            raise no_space(what, in_words(wanted), in_words(free), where)
    if say and any(file.path.endswith(WEIGHTS) for file in missing):
        room = in_words(shutil.disk_usage(_place(cache)).free)
        logger.warning("downloading %s: %d files, %s (%s free in %s)", what, len(missing), in_words(size), room, cache)


def _place(path: Path) -> Path:
    """The path, or the first of those above it that exists."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())
