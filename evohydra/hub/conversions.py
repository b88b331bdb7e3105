"""The hub's own conversions of pickles into safetensors: pull requests that its bot has opened."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evohydra.files import read_json
from evohydra.hub import cache_directory, folder_name
from evohydra.hub.listing import Listed, Listing, cached_listing, lacking, list_files, needed, pickled, whole
from evohydra.hub.messages import hub_errors
from evohydra.hub.notes import write_note

BOT = "SFconvertbot"
TITLE = "Adding `safetensors` variant of this model"  # transformers looks for it too
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Conversion:
    """A pull request of the bot's, and what it holds at its last commit."""

    request: str
    listing: Listing


def find_conversion(listing: Listing, patterns: Sequence[str]) -> Conversion | None:
    """The bot's conversion of the pickles in `listing`; None where there is none of just these pickles.

    Only pull requests of the bot's count, whose branch still holds the pickles that they were made from: those of the
    listing, by SHA-256; and only whole ones. Raises huggingface_hub's errors.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi()
    wanted = _hashes(pickled(listing.files, patterns))
    try:
        requests = list(api.get_repo_discussions(listing.repository, discussion_type="pull_request"))
    except (KeyError, TypeError, AttributeError) as error:  # of a client that reads an answer of another shape
        raise ConnectionError(f"no answer of a hub: {type(error).__name__}: {error}") from error
    for request in requests:
        named = request.title == TITLE and request.author == BOT and request.status in ("open", "merged", "draft")
        if not (request.is_pull_request and named):
            continue
        offered = list_files(listing.repository, request.git_reference)
        same = _hashes(pickled(offered.files, patterns)) == wanted
        if same and not lacking(offered.files, patterns) and whole(needed(offered.files, patterns)):
            return Conversion(request.git_reference, offered)
    return None


def _hashes(files: Sequence[Listed]) -> dict[str, str | None]:
    return {file.path: file.sha256 for file in files}


def remember(listing: Listing, conversion: Conversion) -> None:
    """Keep which conversion was taken for a commit, so that it is taken again, without a network too."""
    write_note(
        _note(listing.repository, listing.commit),
        {"request": conversion.request, "commit": conversion.listing.commit},
    )


def remembered(listing: Listing) -> Conversion | None:
    """What was taken for a commit before, by the hub or, where it does not answer, by the cache; None for nothing."""
    try:
        note = read_json(_note(listing.repository, listing.commit))
    except (OSError, ValueError):
        return None
    request, commit = note.get("request"), note.get("commit")
    if not (isinstance(request, str) and isinstance(commit, str) and COMMIT.fullmatch(commit)):
        return None
    try:
        found = None if listing.cached else list_files(listing.repository, commit)
    except hub_errors():
        found = None
    found = found or cached_listing(listing.repository, commit)
    return Conversion(request, found) if found else None


def _note(repository: str, commit: str) -> Path:
    return cache_directory() / "conversions" / folder_name(repository) / f"{commit}.json"
