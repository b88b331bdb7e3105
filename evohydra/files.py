"""Files that hold their old content or their new one, never half of it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to a temporary name and rename it; OSError where the disk is full, with nothing left behind."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")  # of several processes each has its own
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Mapping[str, object]) -> None:
    """Write `data` as indented JSON, whole or not at all."""
    write_whole(path, json.dumps(data, indent=2, ensure_ascii=False).encode() + b"\n")
