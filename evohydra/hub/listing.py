"""What a repository holds at a commit, and which of its files a source needs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from evohydra.files import read_json

# The names by which transformers and diffusers find weights, whole or in shards; all others are something else's:
# adapters, states of optimizers, models of other runtimes.
SAFE, PICKLE = "safetensors", "bin"
_NAME = r"(?P<stem>{stem})(?P<variant>\.\w+)?(?P<shard>-\d+-of-\d+)?\.{suffix}"
MODEL = re.compile(_NAME.format(stem="(diffusion_pytorch_)?model", suffix=SAFE))
PICKLED = re.compile(_NAME.format(stem="(diffusion_)?pytorch_model", suffix=PICKLE))
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth")  # of single files
NUMBERS = re.compile(r"-(\d+)-of-(\d+)")
HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Listed:
    """A file of a repository: `size` in bytes, `sha256` of large files, and under which name the cache has it."""

    path: str
    size: int
    sha256: str | None
    etag: str


@dataclass(frozen=True)
class Listing:
    """The files of `repository` at `commit`; `cached` where the local cache says so, and the hub was not asked.

    `certain` is false where nothing in the cache says what belongs to the commit: `files` are those that are there.
    """

    repository: str
    commit: str
    files: tuple[Listed, ...]
    cached: bool = False
    certain: bool = True

    def named(self, names: Sequence[str]) -> tuple[Listed, ...]:
        """The files of these names."""
        return tuple(file for file in self.files if file.path in set(names))

    def etags(self) -> dict[str, str]:
        """What each file holds, by path."""
        return {file.path: file.etag for file in self.files}


def list_files(repository: str, revision: str | None) -> Listing:
    """Ask the hub what a repository holds at a branch, tag or commit (None: its main branch).

    Raises huggingface_hub's errors, and ConnectionError where something answers in the hub's place.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        commit = str(api.repo_info(repository, revision=revision).sha)
        entries = list(api.list_repo_tree(repository, recursive=True, revision=commit))
    except (KeyError, TypeError, AttributeError) as error:  # of a client that reads an answer of another shape
        raise ConnectionError(f"no answer of a hub: {type(error).__name__}: {error}") from error
    return Listing(
        repository,
        commit,
        tuple(
            Listed(e.path, e.size, e.lfs.sha256 if e.lfs else None, e.lfs.sha256 if e.lfs else e.blob_id)
            for e in entries
            if isinstance(e, huggingface_hub.hf_api.RepoFile)
        ),
    )


def cached_listing(repository: str, revision: str | None) -> Listing | None:
    """The same from the cache: what it knows of the commit that a branch was at when it was last downloaded.

    None where it knows no such commit. huggingface_hub keeps a list of each commit's files since its version 2.
    """
    there = snapshot(repository, revision)
    if there is None:
        return None
    try:
        tree = read_json(there.parent.parent / "trees" / f"{there.name}.json")["files"]
        files = tuple(
            Listed(path, entry.get("lfs_size") or entry["size"], sha, sha or entry["blob_id"])
            for path, entry in tree.items()
            for sha in [entry.get("lfs_sha256")]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Listing(repository, there.name, _linked(there), cached=True, certain=False)
    return Listing(repository, there.name, files, cached=True)


def snapshot(repository: str, revision: str | None) -> Path | None:
    """The folder of the commit that the cache knows for the revision, whatever it holds; its name is the commit."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=[], local_files_only=True)
        )
    except LocalEntryNotFoundError:
        return None


def _linked(there: Path) -> tuple[Listed, ...]:
    """The files of a folder of the cache, which are links to files that are called by what they hold."""
    found = {path.relative_to(there).as_posix(): path for path in sorted(there.rglob("*")) if path.is_file()}
    etags = {name: path.resolve().name if path.is_symlink() else name for name, path in found.items()}
    return tuple(
        Listed(name, path.stat().st_size, etags[name] if HASH.fullmatch(etags[name]) else None, etags[name])
        for name, path in found.items()
    )


def needed(files: Sequence[Listed], patterns: Sequence[str]) -> tuple[Listed, ...]:
    """The files that `patterns` find, folder by folder, without weights that no library would load.

    Where a folder has a model's weights, safetensors of other names are left out, variants beside weights without one,
    and of a whole file and its shards those that transformers and diffusers do not take. A pattern without a folder
    finds nothing in folders. `!` before a pattern leaves out what it finds.
    """
    left_out = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    found = [file for file in files if is_found(file.path, patterns) and not is_found(file.path, left_out)]
    unused = _unused([file.path for file in found], MODEL, SAFE)
    return tuple(file for file in found if file.path not in unused)


def pickled(files: Sequence[Listed], patterns: Sequence[str]) -> tuple[Listed, ...]:
    """The pickled weights in the place of the safetensors that `patterns` ask for."""
    weights = [pattern for pattern in patterns if pattern.endswith(f".{SAFE}")]
    instead = [pattern.replace(f".{SAFE}", f".{PICKLE}") for pattern in weights]
    left_out = [pattern[1:] for pattern in instead if pattern.startswith("!")]
    found = [
        file
        for file in files
        if is_found(file.path, instead) and not is_found(file.path, left_out) and PICKLED.fullmatch(_name(file.path))
    ]
    indices = [file.path for file in files if ".bin.index" in file.path]
    unused = _unused([*(file.path for file in found), *indices], PICKLED, PICKLE)
    return tuple(file for file in found if file.path not in unused)


def lacking(files: Sequence[Listed], patterns: Sequence[str]) -> tuple[Listed, ...]:
    """The pickled weights of folders that have no model's safetensors among the files that `patterns` find.

    Safetensors of other names beside them, an adapter's for example, are not what libraries load.
    """
    there = {folder_of(file.path) for file in needed(files, patterns) if MODEL.fullmatch(_name(file.path))}
    return tuple(file for file in pickled(files, patterns) if folder_of(file.path) not in there)


def variant_of(path: str) -> str | None:
    """The variant of a model's weights, such as .fp16; None for those without one and for other files."""
    found = MODEL.fullmatch(_name(path)) or PICKLED.fullmatch(_name(path))
    return found["variant"] if found else None


def whole(files: Sequence[Listed]) -> bool:
    """Whether no shard is missing of the safetensors among `files`, by their numbers."""
    counts: dict[tuple[str, str], set[int]] = {}
    for path in (file.path for file in files if file.path.endswith(f".{SAFE}")):
        if found := NUMBERS.search(path):
            counts.setdefault((NUMBERS.sub("", path), found[2]), set()).add(int(found[1]))
    return all(numbers == set(range(1, int(count) + 1)) for (_, count), numbers in counts.items())


def folder_of(path: str) -> str:
    """The folder of a file of a repository; empty at the top."""
    return path.rpartition("/")[0]


def has_weights(files: Sequence[Listed]) -> bool:
    """Whether there are safetensors among the files."""
    return any(file.path.endswith(f".{SAFE}") for file in files)


def chosen_weights(names: Sequence[str], pattern: re.Pattern[str] = MODEL, suffix: str = SAFE) -> set[str]:
    """Of the files of one folder those that libraries load as a model's weights, and the indices of shards.

    transformers takes a whole file before shards, diffusers shards before a whole file if there is an index of them.
    Shards without an index are only taken where nothing else is there.
    """
    models: Mapping[str, re.Match[str]] = {name: found for name in names if (found := pattern.fullmatch(name))}
    chosen: set[str] = set()
    for kind in {(found["stem"], found["variant"]) for found in models.values()}:
        stem, variant = kind[0], kind[1] or ""
        mine = {name for name, found in models.items() if (found["stem"], found["variant"]) == kind}
        shards = {name for name in mine if models[name]["shard"]}
        index = {f"{stem}{at}.{suffix}.index{after}.json" for at, after in ((variant, ""), ("", variant))} & set(names)
        sharded = shards and (shards == mine or (stem.startswith("diffusion") and index))
        chosen |= (shards | index) if sharded else mine - shards
    return chosen


def _unused(paths: Sequence[str], pattern: re.Pattern[str], suffix: str) -> set[str]:
    """The weights, and indices of shards, in folders with a model's weights, that no library loads."""
    unused: set[str] = set()
    for folder in {folder_of(path) for path in paths}:
        below = f"{folder}/" if folder else ""
        names = [_name(path) for path in paths if folder_of(path) == folder]
        chosen = chosen_weights(names, pattern, suffix)
        models = {name: model for name in chosen if (model := pattern.fullmatch(name))}
        plain = {model["stem"] for model in models.values() if not model["variant"]}
        chosen -= {name for name, model in models.items() if model["variant"] and model["stem"] in plain}
        if any(pattern.fullmatch(name) for name in chosen):
            about = [name for name in names if name.endswith(f".{suffix}") or f".{suffix}.index" in name]
            unused |= {f"{below}{name}" for name in about if name not in chosen}
    return unused


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def is_found(path: str, patterns: Sequence[str]) -> bool:
    """Whether one of `patterns` finds a file of a repository; those that begin with `!` find nothing."""
    name = PurePosixPath(path)
    return any(
        name.match(pattern) and len(name.parts) == len(PurePosixPath(pattern).parts)
        for pattern in patterns
        if not pattern.startswith("!")
    )
