"""Why something could not be had from the hub, in a sentence that says what to do."""

import difflib
import importlib
from collections.abc import Sequence
from contextlib import suppress
from json import JSONDecodeError
from pathlib import Path

from evohydra.hub import SourceError

NEAR = 3  # names are proposed


def unreachable(error: Exception) -> bool:
    """Whether the hub could not be asked: no network, switched off, out of order, too busy, or something in its place.

    The last is what networks do that want a login first: their page is no JSON.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    kinds = (OfflineModeIsEnabled, LocalEntryNotFoundError, ConnectionError, JSONDecodeError, *_transport_errors())
    return isinstance(error, kinds) or busy(error) is not None


def switched_off(error: Exception) -> bool:
    """Whether the user wants no network."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    return isinstance(error, OfflineModeIsEnabled)


def busy(error: Exception) -> float | None:
    """The seconds that a hub which is out of order, or has too many to answer, wants one to wait; None for others."""
    from huggingface_hub.errors import HfHubHTTPError

    if not isinstance(error, HfHubHTTPError) or error.response is None:
        return None
    if error.response.status_code < 500 and error.response.status_code != 429:
        return None
    wait = error.response.headers.get("Retry-After") or "0"
    return float(wait) if wait.isdecimal() else 0.0


def gone(error: Exception) -> bool:
    """Whether the hub has no such repository or revision, as far as it tells."""
    from huggingface_hub import errors

    kinds = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError)
    return isinstance(error, kinds) and not isinstance(error, errors.GatedRepoError)


def hub_errors() -> tuple[type[Exception], ...]:
    """All that huggingface_hub raises where something is not to be had; what failed is `explained`."""
    return (OSError, ValueError, RuntimeError, *_transport_errors())


def _transport_errors() -> list[type[Exception]]:
    """Those of the clients that huggingface_hub has had since 1.0."""
    found = []
    for client in ("httpx", "httpx2"):
        with suppress(ImportError):
            found.append(importlib.import_module(client).TransportError)
    return found


def explained(repository: str, revision: str | None, error: Exception) -> SourceError:
    """The sentence for an error of huggingface_hub's about a repository."""
    from huggingface_hub import errors

    at = f" at revision {revision}" if revision else ""
    what = f"{repository!r}{at} on the Hugging Face hub"
    if isinstance(error, errors.GatedRepoError):
        return SourceError(gated(repository))
    if isinstance(error, errors.RevisionNotFoundError):
        return SourceError(
            f"{repository!r} on the Hugging Face hub has no revision {revision!r}; expected a branch, a tag or a commit"
        )
    if isinstance(error, (errors.RepositoryNotFoundError, errors.HFValidationError)):
        return SourceError(_unknown(repository))
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None and error.response.status_code == 401:
        return SourceError(
            f"the hub refuses the token with which {what} was asked for; it may have expired. Log in again (hf auth "
            "login), or correct or unset the environment variable HF_TOKEN: public models need none"
        )
    if unreachable(error):
        return SourceError(
            f"could not reach {what}, and it is not in the local cache ({type(error).__name__}). "
            "Without a network download it elsewhere and give the directory: "
            f"model.sources.<name>.path=/models/{repository.rpartition('/')[2]}"
        )
    return SourceError(
        f"could not ask for {what} ({_first_line(error)}). Where it was downloaded before, the environment variable "
        "HF_HUB_OFFLINE=1 takes it from the local cache"
    )


def not_cached(repository: str, revision: str | None) -> SourceError:
    """Where the hub does not answer and the cache has no weights."""
    return explained(repository, revision, ConnectionError())


def broken_off(repository: str, error: Exception) -> SourceError:
    """The sentence for a download that has begun."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return SourceError(gated(repository))
    return SourceError(
        f"could not download all of {repository!r} ({_first_line(error)}). What has come is kept. The same command "
        "goes on"
    )


def unfinished(what: str, missing: Sequence[str], count: int) -> SourceError:
    """Where the cache has only some of the files, and the hub cannot be asked."""
    some = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
    return SourceError(
        f"the download of {what} is unfinished: {len(missing)} of its {count} files are not in the local cache "
        f"({some}), and the hub does not answer. Go online and run the same command again"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines[0] else type(error).__name__


def gated(repository: str) -> str:
    """How to get at a gated repository."""
    return (
        f"{repository!r} on the Hugging Face hub is gated: its authors want you to accept their conditions first. "
        f"Accept them at https://huggingface.co/{repository}, and log in here (hf auth login, or a token in the "
        "environment variable HF_TOKEN). Or give a copy that you have: model.sources.<name>.path=/DIRECTORY"
    )


def _unknown(repository: str) -> str:
    near = _near(repository)
    proposed = f" Near names on the hub: {', '.join(near)}." if near else ""
    return (
        f"there is no {repository!r} on the Hugging Face hub, or it is private.{proposed} Check the spelling, and log "
        "in if it is private (hf auth login, or a token in the environment variable HF_TOKEN)"
    )


def _near(repository: str) -> Sequence[str]:
    """Names of repositories like this one, by the name, or by the owner's others."""
    import huggingface_hub

    owner, _, name = repository.partition("/")
    api = huggingface_hub.HfApi()
    stem = name[: max(4, len(name) // 2)]
    found: list[str] = []
    try:
        for query in ({"search": name}, {"author": owner}, {"search": stem}):
            found += [each.id for each in api.list_models(**query, limit=50)]
    except hub_errors():
        return ()  # what is proposed is a help, and no more
    return difflib.get_close_matches(repository, sorted(set(found)), n=NEAR, cutoff=0.5)


def no_space(what: str, size: str, free: str, where: Path) -> SourceError:
    """Where a download would not fit on the disk."""
    return SourceError(
        f"{what} needs {size} on the disk of {where}, which has {free} free. Nothing was downloaded. Make room, or "
        "choose another disk with the environment variables HF_HOME (downloads) and EVOHYDRA_CACHE (conversions)"
    )
