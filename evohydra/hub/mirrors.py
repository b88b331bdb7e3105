"""One model under several names: which of them can be read here, and whether they hold the same."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from evohydra.files import read_json
from evohydra.hub import SourceError, cache_directory
from evohydra.hub.asking import ask
from evohydra.hub.hashes import git_hash, remembered_sha256
from evohydra.hub.listing import Listed, Listing, list_files, needed, snapshot
from evohydra.hub.messages import explained, gated, hub_errors, unreachable
from evohydra.hub.notes import write_note

NO_PINS: Mapping[str, str] = MappingProxyType({})
SAFE = ".safetensors"
COMPARED = tuple(  # weights, configurations and tokenizers
    f"{folder}{name}"
    for folder in ("", "*/")
    for name in ("*.json", "*.model", "*.jinja", "vocab.txt", "merges.txt", "*.safetensors", "!*.index*.json")
)
Chosen = tuple[str, str | None]  # a path, and at which revision


def readable(paths: Sequence[str], revision: str | None = None, pinned: Mapping[str, str] = NO_PINS) -> Chosen:
    """The first of `paths` that can be read here, and at which revision; a single one is not looked at.

    `revision` is that of the first name. Another one, or a directory behind it, has to hold the same weights and
    settings by their hashes, which the hub tells of gated repositories too; or `pinned` has all of its safetensors, by
    SHA-256, and they are compared when they are read. Raises SourceError where none can be taken.
    """
    if len(paths) == 1 or _is_here(paths[0]):
        return paths[0], revision
    first: Listing | None = None
    reasons = []
    for path in paths:
        try:
            listing = _listing(path, revision if path == paths[0] else None, first)
            first = listing if path == paths[0] else first
            reason = _unusable(path, listing, first, pinned)
        except hub_errors() as error:
            if unreachable(error):
                return _cached(paths, revision)
            reasons.append(str(explained(path, revision if path == paths[0] else None, error)))
            continue
        if reason is None:
            chosen = (path, revision if path == paths[0] else None if _is_here(path) else listing.commit)
            write_note(_note(paths, revision), {"path": chosen[0], "revision": chosen[1]})
            return chosen
        reasons.append(reason)
    raise SourceError(f"none of the bases {list(paths)} can be read: " + "; ".join(reasons))


def _unusable(path: str, listing: Listing, first: Listing | None, pinned: Mapping[str, str]) -> str | None:
    """Why the model at `path` cannot be taken for the one that `first` lists; None where it can."""
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    if not _is_here(path):
        try:
            ask(lambda: huggingface_hub.HfApi().auth_check(path))
        except GatedRepoError:
            return gated(path)
    weights = {file.path for file in needed(listing.files, COMPARED) if file.path.endswith(SAFE)}
    if listing is first:
        return None
    if first is None:
        if weights and weights <= pinned.keys():
            return None
        return (
            f"{path!r} can be read, but the hub tells nothing of the first name, so nothing says that it is a copy; "
            "give it alone as model.sources.<name>.base if you trust it, or pin its safetensors by "
            "model.sources.<name>.base_sha256"
        )
    if differing := differences(first, listing):
        more = " and others" if differing[1:] else ""
        return f"{path!r} does not hold the files of {first.repository!r} ({differing[0]}{more}), so it is no copy"
    return None


def differences(one: Listing, other: Listing) -> list[str]:
    """The weights and settings that are not the same in both, by name; `*.safetensors` where there are none."""
    first, second = ({file.path: file.etag for file in needed(listing.files, COMPARED)} for listing in (one, other))
    differing = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    return differing or ([] if any(name.endswith(SAFE) for name in first) else [f"*{SAFE}"])


def _is_here(path: str) -> bool:
    return path.startswith("zoo://") or Path(path).expanduser().is_dir()


def _listing(path: str, revision: str | None, like: Listing | None) -> Listing:
    """What the hub says of a repository; of a directory the same, hashed as `like` has its files."""
    if not _is_here(path):
        return ask(lambda: list_files(path, revision))
    directory = Path(path).expanduser()
    large = {file.path for file in like.files if file.sha256} if like else set()
    found = sorted(file for file in directory.rglob("*") if file.is_file())
    names = {file.relative_to(directory).as_posix(): file for file in found}
    candidates = needed([Listed(name, 0, None, name) for name in names], COMPARED)
    files = [
        Listed(c.path, 0, None, remembered_sha256(names[c.path]) if c.path in large else git_hash(names[c.path]))
        for c in candidates
    ]
    return Listing(path, "", tuple(files))


def _cached(paths: Sequence[str], revision: str | None) -> Chosen:
    """Without the hub: the first name where its weights are cached, else the one that was compared and taken before."""
    try:
        note = read_json(_note(paths, revision))
    except (OSError, ValueError):
        note = {}
    known = [(path, note.get("revision")) for path in paths[1:] if path == note.get("path") and not _is_here(path)]
    for path, at in ((paths[0], revision), *known):
        there = snapshot(path, at)
        if there and any(there.rglob(f"*{SAFE}")):
            return path, at
    return paths[0], revision


def _note(paths: Sequence[str], revision: str | None) -> Path:
    about = hashlib.sha256(str((list(paths), revision)).encode()).hexdigest()[:32]
    return cache_directory() / "mirrors" / f"{about}.json"
