"""Which commit of a repository a source was read from."""

import re
from pathlib import Path

COMMIT = re.compile(r"[0-9a-f]{40}")
SNAPSHOTS, CONVERTED = "snapshots", "converted"  # in the cache of huggingface_hub, and in evohydra's


def commit_of(path: Path) -> str | None:
    """The commit whose files are at `path`, a directory in a cache or a file in one; None for any other place."""
    parts = path.parts
    for at in range(len(parts) - 1, 1, -1):
        if COMMIT.fullmatch(parts[at]) and (parts[at - 1] == SNAPSHOTS or parts[at - 2] == CONVERTED):
            return parts[at]
    return None
