"""Sources on the Hugging Face hub: which files they need, how they are fetched, and what to do about pickles."""

import os
from pathlib import Path


class SourceError(ValueError):
    """A source model that cannot be used: which one, what was expected and what came."""


class MissingSourceError(SourceError):
    """A source that is not where it is said to be, and that no hub can have."""


def cache_directory() -> Path:
    """Where evohydra keeps what it made of downloads: EVOHYDRA_CACHE, else ~/.cache/evohydra."""
    chosen = os.environ.get("EVOHYDRA_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "evohydra"


def in_words(size: float) -> str:
    """A number of bytes as people read it, in decimal units: 14.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{size:.4g} TB"


def folder_name(repository: str) -> str:
    """The name of a repository as that of a folder, as the hub's own cache has it."""
    return "models--" + repository.replace("/", "--")
