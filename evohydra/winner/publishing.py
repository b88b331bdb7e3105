"""The upload of a winner to the Hugging Face hub, where it is asked for with `push=OWNER/NAME`."""

import re
from pathlib import Path

from evohydra.files import Plain
from evohydra.hub.messages import hub_errors, unreachable
from evohydra.merging.finding import place
from evohydra.winner.directories import LIST
from evohydra.winner.snippets import PLACE

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
CARD = "README.md"
MAY_WRITE = "a token with write access, from https://huggingface.co/settings/tokens (hf auth login, or HF_TOKEN)"


class PushError(RuntimeError):
    """A winner that could not be uploaded; all of it is on disk."""


def check_push(name: str, *, swept: bool) -> None:
    """ValueError where a winner could not be uploaded as `name`, before anything is searched.

    swept: whether the run is one of a sweep. The hub is asked who the user is, and for nothing else.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"push: expected OWNER/NAME, a repository of the Hugging Face hub, got {name!r}")
    if swept:
        raise ValueError(f"push={name}: the jobs of a sweep have a winner each; upload the one that you choose")
    role = _role(name)
    if role == "read":
        raise ValueError(f"push={name}: the token may only read; it takes {MAY_WRITE}")


def check_base(name: str, base: str) -> None:
    """ValueError where an adapter on `base` could not be used by who downloads it as `name`."""
    if place(base) != base or not NAME.fullmatch(base):
        raise ValueError(
            f"push={name}: an adapter names its base, which others have to find: expected OWNER/NAME of the hub as the "
            f"base of the sources (model.sources.NAME.base and path), got {base}; search without push, and put the "
            "hub's name into base_model_name_or_path of winner/adapter_config.json before you upload it, or choose "
            "format=plain"
        )


def _role(name: str) -> str | None:
    """What the user's token allows, in the hub's words."""
    import huggingface_hub

    if huggingface_hub.get_token() is None:
        raise ValueError(f"push={name}: nobody is logged in to the Hugging Face hub; it takes {MAY_WRITE}")
    try:
        who: Plain = huggingface_hub.HfApi().whoami()
    except hub_errors() as error:
        if unreachable(error):
            raise ValueError(
                f"push={name}: the Hugging Face hub cannot be reached ({type(error).__name__}); search without push, "
                "and give the same command with it later"
            ) from error
        raise ValueError(f"push={name}: the hub refuses the token; it takes {MAY_WRITE}") from error
    role = ((who.get("auth") or {}).get("accessToken") or {}).get("role")
    return None if role is None else str(role)


def push(directory: Path, name: str) -> str:
    """Upload the checkpoint in `directory` as `name` in one commit; returns its address.

    A repository that is not there is made, and is private: whether the licences of all sources allow more is for people
    to say. One that is there stays as visible as it was, and files of other names stay in it. Raises PushError.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        done = api.create_commit(name, _files(directory, name), commit_message="Winner of a search with evohydra")
    except hub_errors() as error:
        told = (str(error).strip().splitlines() or [""])[0][:300]
        raise PushError(
            f"the winner could not be uploaded as {name} ({type(error).__name__}: {told}). It is whole in {directory}; "
            "the same command tries again"
        ) from error
    return str(done.commit_url)


def _files(directory: Path, name: str) -> "list[object]":
    """What is uploaded: every file of the checkpoint, its card with the repository's own name in it."""
    from huggingface_hub import CommitOperationAdd

    found: list[object] = []
    for path in sorted(each for each in directory.rglob("*") if each.is_file() and each.name != LIST):
        inside = path.relative_to(directory).as_posix()
        content = _card(path, name).encode() if inside == CARD else str(path)
        found.append(CommitOperationAdd(inside, content))
    return found


def _card(file: Path, name: str) -> str:
    """The card, whose lines load the model from where it is now."""
    return file.read_text(encoding="utf-8").replace(PLACE, f'place = "{name}"')
