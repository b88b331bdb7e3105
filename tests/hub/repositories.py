"""Repositories of the stand-in of the hub: commits with files, branches, pull requests, who may read them."""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LARGE = (".safetensors", ".bin", ".ckpt", ".parquet", ".model", ".h5", ".msgpack", ".onnx")  # kept by LFS on the hub
BOT = "SFconvertbot"
CONVERSION = "Adding `safetensors` variant of this model"


@functools.cache
def _read(path: Path) -> bytes:
    return path.read_bytes()


@dataclass(frozen=True)
class Content:
    """A file of a commit."""

    source: bytes | Path

    @property
    def data(self) -> bytes:
        return self.source if isinstance(self.source, bytes) else _read(self.source)

    @functools.cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def entry(self, path: str) -> dict[str, object]:
        """As the hub lists it in a tree."""
        data = self.data
        if not path.endswith(LARGE):
            blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            return {"type": "file", "path": path, "size": len(data), "oid": blob}
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(data)}\n".encode()
        blob = hashlib.sha1(f"blob {len(pointer)}\0".encode() + pointer).hexdigest()
        lfs = {"oid": self.sha256, "size": len(data), "pointerSize": len(pointer)}
        return {"type": "file", "path": path, "size": len(data), "oid": blob, "lfs": lfs}

    def etag(self, path: str) -> str:
        return self.sha256 if path.endswith(LARGE) else str(self.entry(path)["oid"])


@dataclass(frozen=True)
class PullRequest:
    """An open pull request, whose commits are at refs/pr/<number>."""

    number: int
    title: str = CONVERSION
    author: str = BOT
    status: str = "open"


@dataclass
class Repository:
    """One repository; `refs` say which commit a branch is at, `history` which one came before a commit."""

    name: str
    kind: str = "models"
    gated: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Content]] = field(default_factory=dict)
    history: dict[str, str | None] = field(default_factory=dict)
    requests: list[PullRequest] = field(default_factory=list)
    private: bool = False

    def commit(self, files: Mapping[str, bytes | Path], ref: str = "main", sha: str | None = None) -> str:
        """Put `files`, all of them, on a branch; returns the commit, `sha` or one that follows from names and bytes."""
        content = {name: Content(source) for name, source in sorted(files.items())}
        hashed = "".join(f"{name} {each.sha256}\n" for name, each in content.items())
        parent = self.refs.get(ref) or self.refs.get("main")
        made = sha or hashlib.sha1(f"{self.name} {ref} {parent} {hashed}".encode()).hexdigest()
        self.commits[made], self.history[made], self.refs[ref] = content, parent, made
        return made

    def propose(self, files: Mapping[str, bytes | Path], request: PullRequest, sha: str | None = None) -> str:
        """A pull request that adds `files` to what main holds; returns its commit."""
        base = {name: content.source for name, content in self.commits[self.refs["main"]].items()}
        self.requests.append(request)
        return self.commit({**base, **files}, f"refs/pr/{request.number}", sha)

    def resolved(self, revision: str) -> str | None:
        """The commit of a branch, or of itself; ~parquet is the hub's short name of a branch of its own."""
        revision = "refs/convert/parquet" if revision == "~parquet" else revision
        return self.refs.get(revision) or (revision if revision in self.commits else None)


def folder(directory: Path, but: tuple[str, ...] = ()) -> dict[str, bytes | Path]:
    """The files below a directory as those of a commit, without names that match `but`."""
    found = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if not any(path.match(each) for each in but)}
