"""Pickled weights in a directory of one's own, and single pickled files."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from evohydra.hub import SourceError, cache_directory
from evohydra.hub.commits import CONVERTED
from evohydra.hub.converting import WEIGHTS_ONLY, conversion_room, convert_directory, made_before, settings_of
from evohydra.hub.hashes import intact, record_beside, remembered_sha256, sha256_of
from evohydra.hub.listing import PICKLE_SUFFIXES, Listed, lacking
from evohydra.hub.weights_only import convert_file, safe_name


def listed(directory: Path) -> tuple[Listed, ...]:
    """The files of a directory and of those below it, without hidden ones, as a listing of the hub has them."""
    paths = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*"))}
    return tuple(
        Listed(name, path.stat().st_size, None, name)
        for name, path in paths.items()
        if path.is_file() and not any(part.startswith(".") for part in name.split("/"))
    )


def with_safetensors(directory: Path, patterns: Sequence[str], convert: str | None) -> Path:
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
    hashes = {name: remembered_sha256(directory / name) for name in (*pickles, *settings)}
    key = hashlib.sha256(str(sorted(hashes.items())).encode()).hexdigest()
    target = cache_directory() / CONVERTED / "local" / key
    return made_before(target) or convert_directory(directory, settings, pickles, target, {})


def is_weights(name: str) -> bool:
    """Whether it is the name of a single file with weights."""
    return "/" not in name and Path(name).suffix in (".safetensors", *PICKLE_SUFFIXES)


def check_pickle_wanted(file: Path, convert: str | None) -> None:
    """SourceError for a pickle, by its name, that is not to be converted."""
    if file.suffix in PICKLE_SUFFIXES and convert != WEIGHTS_ONLY:
        raise SourceError(
            f"{file}: expected safetensors, got a pickle, which can run code and is not loaded as it is. "
            "model.sources.<name>.convert=weights_only converts it with a reader that refuses all but tensors"
        )


def safe_file(file: Path, convert: str | None) -> Path:
    """A safetensors file as it is, of a pickled one its conversion, made once for the same content.

    SourceError for a pickle without `convert`.
    """
    if file.suffix == ".safetensors":
        return file
    check_pickle_wanted(file, convert)
    hashed = remembered_sha256(file)
    target = cache_directory() / CONVERTED / "files" / hashed / file.stem
    made = target / safe_name(file.name)
    if made.is_file() and intact(target):
        return made
    shutil.rmtree(target, ignore_errors=True)
    with conversion_room(target) as room:
        convert_file(file, room / made.name)
        record_beside(room, {"from": {file.name: hashed}, "to": {made.name: sha256_of(room / made.name)}})
    return made
