"""Which commit of a repository a source was read from."""

import re
from pathlib import Path

from evohydra.hub import folder_name

COMMIT = re.compile(r"[0-9a-f]{40}")
PICKLE = "converted"  # beside a commit: a pickle of it that was converted here, and its SHA-256
SNAPSHOTS, CONVERTED = "snapshots", "converted"  # in the cache of huggingface_hub, and in evohydra's


def commit_of(path: Path, named: str | None = None) -> str | None:
    """The commit whose files are at `path`, a directory in a cache or a file in one; None for any other place.

    With `named`, the name of a repository of the hub, also None for the commits of others, of a mirror for example.
    """
    parts = path.parts
    for at in range(len(parts) - 1, 1, -1):
        if COMMIT.fullmatch(parts[at]) and (parts[at - 1] == SNAPSHOTS or parts[at - 2] == CONVERTED):
            folder = parts[at - 2] if parts[at - 1] == SNAPSHOTS else parts[at - 1]
            repository = "/".join(named.split("/")[:2]) if named else ""
            other = named is not None and not Path(named).exists() and folder != folder_name(repository)
            return None if other else parts[at]
    return None


def commit_of_weights(path: Path) -> str | None:
    """The commit whose weights were joined with the settings of another one at `path`; None where they were not."""
    if not (path.is_dir() and CONVERTED in path.parts):
        return None
    links = (file for file in sorted(path.rglob("*.safetensors")) if file.is_symlink())
    return next((commit_of(file.readlink()) for file in links), None)
