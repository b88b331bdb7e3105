"""What a repository holds at a commit, and which of its files a source needs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

# What transformers and diffusers call pickled weights; others in a repository are states of optimizers and the like.
PICKLED = re.compile(r"(pytorch_model|model)(\.\w+)?(-\d+-of-\d+)?\.bin$")
WHOLE_MODEL = re.compile(r"model(\.\w+)?(-\d+-of-\d+)?\.safetensors$")
SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")


@dataclass(frozen=True)
class Listed:
    """A file of a repository: `size` in bytes, `sha256` of large files, and under which name the cache has it."""

    path: str
    size: int
    sha256: str | None
    etag: str


@dataclass(frozen=True)
class Listing:
    """The files of `repository` at `commit`."""

    repository: str
    commit: str
    files: tuple[Listed, ...]

    def named(self, names: Sequence[str]) -> tuple[Listed, ...]:
        """The files of these names."""
        return tuple(file for file in self.files if file.path in set(names))


def list_files(repository: str, revision: str | None) -> Listing:
    """Ask the hub what a repository holds at a branch, tag or commit (None: its main branch).

    Raises huggingface_hub's errors.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi()
    commit = str(api.repo_info(repository, revision=revision).sha)
    entries = api.list_repo_tree(repository, recursive=True, revision=commit)
    return Listing(
        repository,
        commit,
        tuple(
            Listed(e.path, e.size, e.lfs.sha256 if e.lfs else None, e.lfs.sha256 if e.lfs else e.blob_id)
            for e in entries
            if isinstance(e, huggingface_hub.hf_api.RepoFile)
        ),
    )


def needed(files: Sequence[Listed], patterns: Sequence[str]) -> tuple[Listed, ...]:
    """The files that `patterns` find, folder by folder, without weights that others there hold already.

    A pattern without a folder finds nothing in folders. `!` before a pattern leaves out what it finds.
    """
    left_out = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    found = [file for file in files if _any(file.path, patterns) and not _any(file.path, left_out)]
    weights = [file.path for file in found if file.path.endswith(".safetensors")]
    doubled = {path for path in weights if _held_by_others(path, weights)}
    return tuple(file for file in found if file.path not in doubled)


def pickled(files: Sequence[Listed], patterns: Sequence[str]) -> tuple[Listed, ...]:
    """The pickled weights in the place of the safetensors that `patterns` ask for."""
    weights = [pattern for pattern in patterns if pattern.endswith(".safetensors")]
    instead = [pattern.replace(".safetensors", ".bin") for pattern in weights]
    found = [file for file in needed(files, instead) if PICKLED.search(PurePosixPath(file.path).name)]
    shards = [file.path for file in found if "-of-" in file.path]
    return tuple(file for file in found if file.path in shards or not _beside(file.path, shards))


def lacking(files: Sequence[Listed], patterns: Sequence[str]) -> tuple[Listed, ...]:
    """The pickled weights of folders that have no safetensors among the files that `patterns` find."""
    there = {folder_of(file.path) for file in needed(files, patterns) if file.path.endswith(".safetensors")}
    return tuple(file for file in pickled(files, patterns) if folder_of(file.path) not in there)


def folder_of(path: str) -> str:
    """The folder of a file of a repository; empty at the top."""
    return path.rpartition("/")[0]


def has_weights(files: Sequence[Listed]) -> bool:
    """Whether there are safetensors among the files."""
    return any(file.path.endswith(".safetensors") for file in files)


def _any(path: str, patterns: Sequence[str]) -> bool:
    name = PurePosixPath(path)
    return any(
        name.match(pattern) and len(name.parts) == len(PurePosixPath(pattern).parts)
        for pattern in patterns
        if not pattern.startswith("!")
    )


def _held_by_others(path: str, weights: Sequence[str]) -> bool:
    """Whether a file is a second copy: consolidated weights beside a model's, or one whole file beside its shards."""
    there = [other for other in weights if PurePosixPath(other).parent == PurePosixPath(path).parent]
    if not WHOLE_MODEL.search(path):
        return any(WHOLE_MODEL.fullmatch(PurePosixPath(other).name) for other in there)
    return not SHARD.search(path) and any(SHARD.sub(".safetensors", o) == path for o in there if SHARD.search(o))


def _beside(path: str, shards: Sequence[str]) -> bool:
    return any(PurePosixPath(shard).parent == PurePosixPath(path).parent for shard in shards)
