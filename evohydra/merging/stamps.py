"""Whether the files of weights are still those that were read, by what the file system says of them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

Stamp = tuple[int, int, int]  # inode, bytes, time of the last change (ns)
Stamps = Mapping[Path, Stamp]


def stamps(paths: Iterable[Path]) -> dict[Path, Stamp]:
    """Of weights in safetensors: single files, or directories with such files in them or in a folder of theirs."""
    files = [file for path in paths for file in (_weights(path) if path.is_dir() else [path])]
    return {file: _stamp(file) for file in sorted(files) if file.is_file()}


def written_to(known: Stamps) -> list[Path]:
    """The files that were written to in place. One that was replaced or deleted is still mapped as it was."""
    return [file for file, stamp in known.items() if file.is_file() and _in_place(stamp, _stamp(file))]


def _weights(directory: Path) -> list[Path]:
    return [file for pattern in ("*.safetensors", "*/*.safetensors") for file in directory.glob(pattern)]


def _in_place(was: Stamp, now: Stamp) -> bool:
    return was[0] == now[0] and was != now


def _stamp(file: Path) -> Stamp:
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
