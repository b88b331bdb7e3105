"""The directory of compiled kernels: nobody else can write there, and what is loaded from it is what was written."""

import hashlib
import os
import stat
from pathlib import Path

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class UntrustedDirectoryError(ValueError):
    """A directory of kernels in which someone else could have put code."""


def private_directory(directory: Path) -> Path:
    """`directory`, made where it is not there; OSError where that fails.

    Raises UntrustedDirectoryError where it is another user's, where others may write to it, or where they may put
    another one in its place.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = directory.resolve()
    found = place.stat()
    reason = None
    if found.st_uid != os.getuid():
        reason = f"it belongs to the user {found.st_uid}"
    elif found.st_mode & WRITABLE_BY_OTHERS:
        reason = f"other users may write to it (mode {stat.S_IMODE(found.st_mode):o})"
    else:
        above = [parent for parent in place.parents if _replaceable(parent.stat())]
        reason = f"other users may replace what is in {above[0]}" if above else None
    if reason is not None:
        raise UntrustedDirectoryError(
            f"{directory}: expected a directory for compiled kernels that only you can write to, but {reason}; run "
            "`chmod go-w` on it if all in it is yours, set TORCHINDUCTOR_CACHE_DIR to another, or merge.compile=false"
        )
    return place


def _replaceable(above: os.stat_result) -> bool:
    """Whether others may rename what is in a directory. Groups are trusted: many users have one of their own."""
    others = above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX
    return above.st_uid not in (0, os.getuid()) or bool(others)


def kept_file(directory: Path, name: str, suffix: str) -> Path | None:
    """The file that `keep` has put there; one that is not whole, or not the user's own, is removed."""
    for path in sorted(directory.glob(f"{name}-*{suffix}")):
        if _is_whole(path, path.name.removeprefix(f"{name}-").removesuffix(suffix)):
            return path
        path.unlink(missing_ok=True)
    return None


def _is_whole(path: Path, digest: str) -> bool:
    found = path.lstat()
    own = stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & WRITABLE_BY_OTHERS
    return own and _digest(path) == digest


def keep(made: Path, directory: Path, name: str, suffix: str) -> Path:
    """Move a file into `directory`; its name says what it holds, so that half of it is not taken for it."""
    made.chmod(0o700)
    return made.replace(directory / f"{name}-{_digest(made)}{suffix}")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]
