"""The hub's own conversions of pickles into safetensors: pull requests that its bot has opened."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evohydra.files import read_json, write_json
from evohydra.hub import cache_directory, folder_name
from evohydra.hub.listing import Listed, Listing, lacking, list_files, pickled

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
    listing, by SHA-256. Raises huggingface_hub's errors.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi()
    wanted = _hashes(pickled(listing.files, patterns))
    for request in api.get_repo_discussions(listing.repository, discussion_type="pull_request"):
        named = request.title == TITLE and request.author == BOT and request.status in ("open", "merged", "draft")
        if not (request.is_pull_request and named):
            continue
        offered = list_files(listing.repository, request.git_reference)
        same = _hashes(pickled(offered.files, patterns)) == wanted
        if same and not lacking(offered.files, patterns):
            return Conversion(request.git_reference, offered)
    return None


def _hashes(files: Sequence[Listed]) -> dict[str, str | None]:
    return {file.path: file.sha256 for file in files}


def remember(listing: Listing, conversion: Conversion) -> None:
    """Keep which conversion was taken for a commit, so that it is taken again, without a network too."""
    file = _record(listing.repository, listing.commit)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"request": conversion.request, "commit": conversion.listing.commit})


def remembered(repository: str, commit: str) -> tuple[str, str] | None:
    """The name of the pull request and the commit that were taken for a commit before; None where none was."""
    try:
        record = read_json(_record(repository, commit))
    except (OSError, ValueError):
        return None
    request, chosen = record.get("request"), record.get("commit")
    if isinstance(request, str) and isinstance(chosen, str) and COMMIT.fullmatch(chosen):
        return request, chosen
    return None


def _record(repository: str, commit: str) -> Path:
    return cache_directory() / "conversions" / folder_name(repository) / f"{commit}.json"
