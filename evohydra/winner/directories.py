"""The directories that checkpoints are written to: whole or not at all, and what may be replaced by them."""

import itertools
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from evohydra.files import all_on_disk, locked, on_disk, read_json, write_json

# What evohydra writes into a checkpoint's directory.
WRITTEN = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.model",
    "vocab.txt",
    "merges.txt",
    "README.md",
    "mergekit.yaml",
    "*.png",
)
LIST = ".evohydra.json"  # of what rebuild wrote, so that nothing else is ever replaced
PARTIAL = ".partial"  # ends the name of a room


logger = logging.getLogger(__name__)


class ArtifactError(OSError):
    """A checkpoint that could not be written; nothing of it is left behind."""


@contextmanager
def whole_directory(
    target: Path, final: Callable[[], Path] | None = None, known_as: Path | None = None, overwrite: bool = False
) -> Iterator[Path]:
    """A directory to write into that becomes `target` when all went well, and vanishes otherwise.

    `final` is asked at the end for another name, where what was written decides on it. `known_as`: the place that
    messages name, where `target` is moved there later. With `overwrite` a directory that evohydra wrote is replaced.

    Raises ArtifactError where something else is there, and where the disk is full or cannot be written to.
    """
    check_replaceable(target, overwrite)
    where = known_as or target
    with room(target, where) as temporary:
        try:
            yield temporary
            all_on_disk(temporary)
            target = final() if final else target
            check_replaceable(target, overwrite)
            if target.exists():
                shutil.rmtree(target)
            temporary.rename(target)
            on_disk(target.parent)
        except ArtifactError:
            raise
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"could not write {where}: {error}. Nothing half-written was left there") from error


@contextmanager
def room(target: Path, where: Path | None = None, purpose: str = "") -> Iterator[Path]:
    """An empty directory beside `target`, this process's alone, which vanishes at the end unless it was renamed.

    What a killed command has left of it is removed. `where` is the place that messages name. ArtifactError where
    another process works in it, where there is anything that evohydra does not write, and where it cannot be made.
    """
    place = target.with_name(f".{target.name}{purpose}{PARTIAL}")
    _clear(place)
    try:
        place.mkdir(parents=True)
    except OSError as error:
        raise ArtifactError(f"could not write {where or target}: {error}") from error
    with ExitStack() as held:
        with suppress(OSError):  # where another command comes at the same moment and clears it
            held.enter_context(locked(place))
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _clear(place: Path) -> None:
    """Remove what a killed command left at `place`; a process that is at work there keeps it locked."""
    if not os.path.lexists(place):
        return
    reason = "remove it yourself if you do not need it"
    strange = _strange(place) if place.is_dir() and not place.is_symlink() else "a file or a link"
    if strange is not None:
        raise ArtifactError(f"{place}: expected what a killed command left of a checkpoint, got {strange}; {reason}")
    try:
        with locked(place) as sure:
            if not sure:
                raise OSError("this file system has no locks that would tell")
            shutil.rmtree(place)
    except BlockingIOError as error:
        raise ArtifactError(f"{place} exists: another command is writing there now; wait until it is done") from error
    except OSError as error:
        raise ArtifactError(
            f"{place} exists, from a command that was killed or is not done yet; remove it if it was killed ({error})"
        ) from error


def check_replaceable(target: Path, overwrite: bool) -> None:
    """ArtifactError where at `target` is anything but an empty directory, or, with `overwrite`, one of evohydra's."""
    if not (target.exists() or target.is_symlink()):
        return
    plain = target.is_dir() and not target.is_symlink()
    if plain and not any(target.iterdir()):
        return
    if not overwrite:
        raise ArtifactError(f"{target} exists; give a directory that does not, or an empty one")
    strange = _foreign(target) if plain else "a file or a link"
    if strange is not None:
        raise ArtifactError(
            f"{target}: expected a directory that evohydra.rebuild wrote, and nothing else in it, got {strange}; "
            "remove it yourself if you do not need it"
        )


def list_files(directory: Path) -> None:
    """Write down, in a directory that was just filled, the bytes of each file by its name from there."""
    files = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}
    write_json(directory / LIST, {"files": {name: path.stat().st_size for name, path in files.items()}})


def keep_own_files(place: Path) -> None:
    """Move a directory of evohydra's in which a user has put or changed something out of the way of a new one.

    One without a list, of an earlier version, and a link are left as they are.
    """
    if place.is_symlink() or not (place / LIST).is_file() or (strange := _foreign(place)) is None:
        return
    number = next(n for n in itertools.count(1) if not os.path.lexists(place.with_name(f"{place.name}-kept-{n}")))
    kept = place.with_name(f"{place.name}-kept-{number}")
    place.rename(kept)
    logger.warning("%s holds what evohydra did not write (%s): it is kept as %s", place, strange, kept.name)


def _foreign(directory: Path) -> str | None:
    """What in a directory is not on its list, or not as it was; None where there is no such thing."""
    try:
        known = read_json(directory / LIST).get("files")
    except (OSError, ValueError):
        known = None
    if not isinstance(known, Mapping):
        return f"one without {LIST}, the list of what was written"
    folders = {parent.as_posix() for name in known for parent in Path(str(name)).parents}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink() or (path.is_dir() and name not in folders):
            return name
        if path.is_file() and name != LIST and known.get(name) != path.stat().st_size:
            return f"{name}, which has changed" if name in known else name
    return None


def _strange(directory: Path) -> str | None:
    """What in a directory is not left by a killed command; None where there is none."""
    for path in sorted(directory.rglob("*")):
        if path.name.startswith(".") and path.name.endswith(PARTIAL) and not path.is_symlink():
            continue
        usual = path.is_dir() or any(path.match(pattern) for pattern in WRITTEN)
        if path.is_symlink() or path.name.startswith(".") or not usual:
            return str(path.relative_to(directory))
    return None
