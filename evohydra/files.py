"""Files: written with their old content or their new one, never half of it, and read within bounds."""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

MEGABYTE = 10**6
MOST_BYTES = 200 * MEGABYTE  # of a JSON file: tokenizers of large vocabularies have some 30 MB


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


def check_plain_file(path: Path) -> None:
    """ValueError for what is there but is no ordinary file: to read from a pipe may take forever. OSError without."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path}: expected an ordinary file, got a directory, a pipe or a device")


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """The UTF-8 text of an ordinary file of at most `most_bytes`; ValueError for others, OSError where none is."""
    check_plain_file(path)
    if (size := path.stat().st_size) > most_bytes:
        raise ValueError(f"{path}: expected a file of at most {most_bytes / MEGABYTE:g} MB, got {size / MEGABYTE:g} MB")
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, got {error}") from error


def parse_json(text: str, where: object) -> object:
    """The content of a JSON text; ValueError, which names `where` it is from, for what is none or is nested too deep.

    NaN and infinity are no JSON.
    """
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError(f"{where}: expected JSON, got one that is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"{where}: expected JSON, got {error}") from error


def _no_number(text: str) -> object:
    raise ValueError(f"{text}, which is no JSON number")


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> dict[str, object]:
    """The JSON object in a file; ValueError, which names the file, for anything else, OSError where there is none."""
    content = parse_json(read_text(path, most_bytes), path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got a {type(content).__name__}")
    return content
