"""Pickled weights in a directory of one's own, and single pickled files."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from evohydra.files import write_json
from evohydra.hub import SourceError, cache_directory
from evohydra.hub.fetch import WEIGHTS_ONLY, convert_directory, settings_of
from evohydra.hub.listing import Listed, lacking
from evohydra.hub.weights_only import RECORD, check_hashes, convert_file, safe_name, sha256_of

PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth")


def listed(directory: Path) -> tuple[Listed, ...]:
    """The files of a directory and of those below it, without hidden ones, as a listing of the hub has them."""
    paths = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*"))}
    return tuple(
        Listed(name, path.stat().st_size, None, name)
        for name, path in paths.items()
        if path.is_file() and not any(part.startswith(".") for part in name.split("/"))
    )


def with_safetensors(directory: Path, patterns: Sequence[str], convert: str | None, pinned: Mapping[str, str]) -> Path:
    """The directory, or where it holds pickles only, and `convert` says so, its conversion in evohydra's cache.

    A conversion is made once for pickles of the same content. Raises SourceError for a pickle of more than tensors.
    """
    if convert != WEIGHTS_ONLY:
        return directory
    files = listed(directory)
    found = lacking(files, patterns)
    if not found:
        return directory
    pickles = [file.path for file in found]
    settings = [file.path for file in settings_of(files, patterns, found)]
    hashes = {name: sha256_of(directory / name) for name in (*pickles, *settings)}
    check_hashes(directory, hashes, pinned)
    key = hashlib.sha256(str(sorted(hashes.items())).encode()).hexdigest()
    target = cache_directory() / "converted" / "local" / key
    if (target / RECORD).is_file():
        return target
    return convert_directory(directory, settings, pickles, target, pinned)


def converted_file(file: Path, convert: str | None, pinned: Mapping[str, str]) -> Path:
    """The conversion of a single pickled file, made once for the same content; SourceError without `convert`."""
    if convert != WEIGHTS_ONLY:
        raise SourceError(
            f"{file}: expected safetensors, got a pickle, which can run code and is not loaded as it is. "
            "model.sources.<name>.convert=weights_only converts it with a reader that refuses all but tensors"
        )
    hashed = sha256_of(file)
    check_hashes(file, {file.name: hashed}, pinned)
    target = cache_directory() / "converted" / "files" / hashed
    made = target / safe_name(file.name)
    if (target / RECORD).is_file() and made.is_file():
        return made
    room = target / f".{made.name}.{os.getpid()}.partial"
    try:
        convert_file(file, room)
        room.replace(made)
        write_json(target / RECORD, {"from": {file.name: hashed}, "to": {made.name: sha256_of(made)}})
    except OSError as error:
        raise SourceError(f"could not write the conversion of {file} to {made}: {error}") from error
    finally:
        room.unlink(missing_ok=True)
    return made
