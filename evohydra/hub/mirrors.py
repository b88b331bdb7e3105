"""One model under several names: which of them can be read here, and whether they hold the same."""

from collections.abc import Sequence
from pathlib import Path

from evohydra.hub import SourceError
from evohydra.hub.listing import Listing, list_files
from evohydra.hub.messages import explained, gated, hub_errors, unreachable


def readable(paths: Sequence[str], revision: str | None = None) -> str:
    """The first of `paths` that can be read here; a single one is not looked at.

    A directory is taken as it is. Of names on the hub, another one than the first has to hold the same weights, by the
    SHA-256 of their files, which the hub tells of gated repositories too. Raises SourceError where none can be read.
    """
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    if len(paths) == 1:
        return paths[0]
    first: Listing | None = None
    reasons = []
    for path in paths:
        if Path(path).expanduser().is_dir() or path.startswith("zoo://"):
            return path
        try:
            listing = list_files(path, revision if path == paths[0] else None)
            first = first or listing
            huggingface_hub.HfApi().auth_check(path)
        except GatedRepoError:
            reasons.append(gated(path))
        except hub_errors() as error:
            if unreachable(error):
                return _cached(paths, revision) or paths[0]
            reasons.append(str(explained(path, revision, error)))
        else:
            if same_weights(first, listing):
                return path
            reasons.append(f"{path!r} does not hold the files of {first.repository!r}, so it is no copy of it")
    raise SourceError(f"none of the bases {list(paths)} can be read: " + "; ".join(reasons))


def same_weights(one: Listing, other: Listing) -> bool:
    """Whether both hold the same safetensors, by name and SHA-256."""
    first, second = (
        {file.path: file.sha256 for file in listing.files if file.path.endswith(".safetensors")}
        for listing in (one, other)
    )
    return bool(first) and first == second


def _cached(paths: Sequence[str], revision: str | None) -> str | None:
    """The first of the names that the cache knows."""
    import huggingface_hub

    for path in paths:
        if isinstance(huggingface_hub.try_to_load_from_cache(path, "config.json", revision=revision), str):
            return path
    return None
