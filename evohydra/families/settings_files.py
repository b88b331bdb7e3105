"""What a model's directory holds beside its weights: configuration, tokenizer, processors."""

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path

from evohydra.files import MOST_BYTES, check_plain_file
from evohydra.hub.hashes import RECORD
from evohydra.hub.listing import is_found
from evohydra.merging.checkpoints import SourceError

# No network here, and no code that a checkpoint brings along; transformers would ask at the terminal whether to run it.
LOCAL = {"local_files_only": True, "trust_remote_code": False}
SUFFIXES = {".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm"}
INDEX = ".index.json"  # says how weights are cut into files, which changes no number
# What training and conversions leave behind, and what no model is loaded from.
LEFT_OUT = {"trainer_state.json", "all_results.json", "train_results.json", "eval_results.json", "LICENSE.txt", RECORD}


def settings_digest(directory: Path, wanted: Sequence[str]) -> str:
    """A SHA-256 over the names and bytes of such files in `directory` that are `wanted` of a repository.

    What else a whole copy of the repository holds is not read, and may be there or not.
    """
    state = hashlib.sha256()
    for name, path in sorted(_files(directory).items()):
        if is_found(name, wanted):
            state.update(f"{name} {_digest(path)}\n".encode())
    return state.hexdigest()


def differing_files(one: Path, other: Path, but: Collection[str] = ()) -> list[str]:
    """The names of such files directly in the directories that do not hold the same; of JSON objects without `but`."""
    first, second = (
        {name: _content(path, but) for name, path in _files(directory).items() if "/" not in name}
        for directory in (one, other)
    )
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def check_files(directory: Path) -> None:
    """SourceError for such a file that is a link to nothing, a pipe or a device: it would be missed, or never end.

    And for one that is larger than any settings are.
    """
    for path in _named(directory).values():
        if not path.is_dir():
            try:
                check_plain_file(path)
            except (ValueError, OSError) as error:
                raise SourceError(f"{path}: expected an ordinary file, or a link to one ({error})") from error
            if (size := path.stat().st_size) > MOST_BYTES:
                raise SourceError(
                    f"{path}: expected settings, a tokenizer or a text of at most {MOST_BYTES / 1e6:.0f} MB beside the "
                    f"weights, got {size / 1e6:.0f} MB; move it away if it is no part of the model"
                )


def _files(directory: Path) -> dict[str, Path]:
    return {name: path for name, path in _named(directory).items() if path.is_file()}


def _named(directory: Path) -> dict[str, Path]:
    found = {path.relative_to(directory).as_posix(): path for each in ("*", "*/*") for path in directory.glob(each)}
    return {
        name: path
        for name, path in found.items()
        if path.suffix in SUFFIXES
        and not path.name.endswith(INDEX)
        and path.name not in LEFT_OUT
        and not any(part.startswith(".") for part in name.split("/"))
    }


def _content(path: Path, but: Collection[str]) -> object:
    try:
        data = json.loads(path.read_bytes()) if path.suffix == ".json" else None
    except (ValueError, RecursionError):  # no JSON, or nested too deep
        data = None
    if not isinstance(data, dict):
        return _digest(path)
    return {key: value for key, value in data.items() if key not in but}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
