"""Where models are: in the zoo, in a directory, in a single file, on the hub."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from evohydra.hub import MissingSourceError, SourceError, fetch, headers, local
from evohydra.hub.fetch import PIN
from evohydra.hub.hashes import check_pins, parsed_pins

ZOO = Path(__file__).parent.parent / "zoo"
CONFIGS = ("config.json", "model_index.json", "adapter_config.json")
BESIDE = ("*.json", "*.txt", "*.model", "*.jinja")  # the weights of a language model
NOTHING: Mapping[str, str] = MappingProxyType({})


def locate(
    path: str,
    revision: str | None = None,
    *,
    weights: bool = True,
    wanted: Sequence[str] | None = None,
    convert: str | None = None,
    sha256: Mapping[str, str] = NOTHING,
    pin: str = PIN,
) -> Path:
    """The local place of a zoo model, a directory, a safetensors file, or one of them on the hub.

    owner/name and owner/name/file.safetensors are downloaded where they are not cached; of the former the files that
    the patterns `wanted` find, else those of a language model, with or without `weights`. With `convert` pickles are
    made into safetensors where there are no others; `sha256` are the hashes of files that are pinned, by name; behind
    `pin` a user writes the commit that is to be read. Raises SourceError where there is no such directory, the hub
    cannot be reached, or there are pickles only.
    """
    pinned = parsed_pins(sha256)
    patterns = wanted or (*BESIDE, *(["*.safetensors"] if weights else []))
    found = _found(path, fetch.Wish(path, revision, patterns, convert, pinned, pin))
    if not (headers.wanted() and headers.is_stand_in(found)):  # the hub's own hashes were looked at
        check_pins(found, pinned)
    return found


def place(path: str) -> str:
    """What a path means from anywhere on this machine: of a directory or file, or of a zoo model, where it is.

    Names of the hub stay what they are, and so does what is not there.
    """
    found = ZOO / path.removeprefix("zoo://") if path.startswith("zoo://") else Path(path).expanduser()
    return str(found.resolve()) if found.exists() else path


def at_revision(place: str) -> tuple[str, str | None]:
    """The parts of OWNER/NAME@REVISION, as mergekit too writes it; what is on this machine has no revision."""
    path, at, revision = place.rpartition("@")
    return (path, revision) if at and not Path(place).expanduser().exists() else (place, None)


def _found(path: str, wish: fetch.Wish) -> Path:
    if not path.strip():
        raise SourceError("expected a directory, a file or OWNER/NAME of the hub as the path of a model, got none")
    if path.startswith("zoo://"):
        return _in_zoo(path)
    directory = Path(path).expanduser()
    if directory.is_dir():
        return local.with_safetensors(directory.resolve(), wish.patterns, wish.convert)
    if directory.is_file() and local.is_weights(directory.name):
        # Under the name that was given: what a link points to may have no suffix, and other files beside it.
        return local.safe_file(directory.parent.resolve() / directory.name, wish.convert)
    owner, _, rest = path.partition("/")
    repository, _, file = rest.partition("/")
    if owner not in ("", ".", "..", "~") and local.is_weights(file):
        local.check_pickle_wanted(Path(path), wish.convert)
        found = fetch.fetch(replace(wish, repository=f"{owner}/{repository}", patterns=[file], convert=None)) / file
        return local.safe_file(found, wish.convert)
    if directory.is_absolute() or path.startswith((".", "~")) or path.count("/") != 1:
        raise MissingSourceError(
            f"{path}: no such directory or safetensors file (and not a hub id of the form owner/name)"
        )
    return fetch.fetch(wish)


def _in_zoo(path: str) -> Path:
    directory = ZOO / path.removeprefix("zoo://")
    if not any((directory / name).is_file() for name in CONFIGS):
        known = sorted(config.parent.name for name in CONFIGS for config in ZOO.glob(f"*/{name}"))
        raise SourceError(f"{path}: no such model in the zoo; it holds {known}")
    return directory
