"""The SHA-256 of files: computed once for a file that stays as it is, and compared with what was promised."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from evohydra.files import MEGABYTE, read_json, write_json
from evohydra.hub import SourceError, cache_directory
from evohydra.hub.listing import Listed
from evohydra.hub.notes import write_note

RECORD = "conversion.json"  # in a conversion: what it was made from, what came out and what is beside it, by SHA-256
PIN = re.compile(r"[0-9a-f]{64}")
GIT = re.compile(r"[0-9a-f]{40}")


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's content, read in blocks."""
    state = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(16 * MEGABYTE):
            state.update(block)
    return state.hexdigest()


def remembered_sha256(file: Path) -> str:
    """The same, not computed again for a file of the same place, size and time of the last change."""
    place = file.resolve()
    found = place.stat()
    stamp = [str(place), found.st_ino, found.st_size, found.st_mtime_ns]
    note = cache_directory() / "hashes" / f"{hashlib.sha256(str(place).encode()).hexdigest()[:32]}.json"
    try:
        known = read_json(note)
    except (OSError, ValueError):
        known = {}
    if known.get("stamp") == stamp and PIN.fullmatch(str(known.get("sha256"))):
        return str(known["sha256"])
    hashed = sha256_of(file)
    write_note(note, {"stamp": stamp, "sha256": hashed})
    return hashed


def parsed_pins(pinned: Mapping[str, str]) -> dict[str, str]:
    """Pins in lower case; SourceError for one that is no SHA-256."""
    for name, value in pinned.items():
        if not PIN.fullmatch(str(value).lower()):
            raise SourceError(f"model.sources.<name>.sha256: {name}: expected 64 hexadecimal digits, got {value!r}")
    return {name: str(value).lower() for name, value in pinned.items()}


def check_hashes(where: object, got: Mapping[str, str | None], pinned: Mapping[str, str]) -> None:
    """SourceError for the first file whose SHA-256 is known and not the one that is `pinned`."""
    for name, expected in pinned.items():
        if got.get(name) not in (None, expected):
            raise SourceError(
                f"{where}: {name} is not the file that was pinned: expected the SHA-256 {expected}, got {got[name]}. "
                "If its authors have changed it and you trust that, change model.sources.<name>.sha256"
            )


def check_pins(place: Path, pinned: Mapping[str, str]) -> None:
    """SourceError where a pinned file is another one than at `place`, by its bytes, or is not among those read.

    `place` is a directory or a single file. Of a conversion the pickles count too, by what they were when it was made.
    """
    if not pinned:
        return
    directory = place if place.is_dir() else place.parent
    made_here = place.is_relative_to(cache_directory().absolute())  # elsewhere anybody may have written the record
    made_from = converted_from(place) if made_here else {}
    for name, expected in pinned.items():
        file = directory / name
        there = file.is_file() and (place.is_dir() or file.name == place.name)
        if name not in made_from and not there:
            raise SourceError(
                f"model.sources.<name>.sha256 pins {name}, which is not among the files that are read from {place}; "
                f"these are {_names(place, made_from)}"
            )
        check_hashes(place, {name: made_from.get(name) or remembered_sha256(file)}, {name: expected})


def converted_from(place: Path) -> dict[str, str]:
    """The SHA-256 of the pickles that the conversion at `place` was made from; empty for any other place."""
    file = (place if place.is_dir() else place.parent) / RECORD
    try:
        return {str(name): str(hashed) for name, hashed in read_json(file)["from"].items()}
    except (OSError, ValueError, KeyError, AttributeError):
        return {}


def converted_pin(place: Path) -> dict[str, str]:
    """The first of the pickles that a conversion in the cache was made from, by name, as one would pin it."""
    made_here = place.is_relative_to(cache_directory().absolute())
    return dict(sorted(converted_from(place).items())[:1]) if made_here else {}


def intact(directory: Path) -> bool:
    """Whether the conversion in `directory` holds what it did when it was made, weights and settings."""
    try:
        record = read_json(directory / RECORD)
        made = {**record["to"], **record["beside"]}
        return bool(made) and all(remembered_sha256(directory / name) == hashed for name, hashed in made.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def record_beside(directory: Path, hashes: Mapping[str, Mapping[str, str]]) -> None:
    """Write conversion.json into `directory`: `hashes`, and the SHA-256 of all that stands beside the weights."""
    paths = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if not path.is_symlink()}
    others = {name for name, path in paths.items() if path.is_file()} - {RECORD, *hashes["to"]}
    write_json(directory / RECORD, {**hashes, "beside": {name: sha256_of(paths[name]) for name in sorted(others)}})


def check_downloaded(where: str, directory: Path, files: Sequence[Listed]) -> None:
    """SourceError where a file in `directory` does not hold what the hub says that it does.

    The hub tells the SHA-256 of large files, and of others the hash by which git knows them.
    """
    for file in files:
        place = directory / file.path
        kind, told, got = "SHA-256", file.sha256, ""
        if file.sha256:
            got = remembered_sha256(place)
        elif GIT.fullmatch(file.etag):
            kind, told, got = "git hash", file.etag, git_hash(place)
        if told and got != told:
            raise SourceError(
                f"{where}: {file.path} in the local cache is damaged: the hub says its {kind} is {told}, its "
                f"bytes have {got}. Delete {place.resolve()} and run the same command again"
            )


def git_hash(file: Path) -> str:
    """What git, and so the hub, calls the content of a small file."""
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _names(place: Path, made_from: Mapping[str, str]) -> list[str]:
    files = [p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()] if place.is_dir() else []
    return sorted([*(files or [place.name]), *made_from])[:12]
