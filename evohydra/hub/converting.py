"""Directories in evohydra's cache: conversions of pickles, and the hub's own conversions with a branch's settings."""

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from glob import escape
from pathlib import Path

from evohydra.files import locked, read_json
from evohydra.hub import SourceError, cache_directory, folder_name
from evohydra.hub.commits import CONVERTED
from evohydra.hub.hashes import RECORD, check_hashes, converted_from, intact, record_beside
from evohydra.hub.listing import Listed, folder_of, needed
from evohydra.hub.space import WEIGHTS
from evohydra.hub.weights_only import convert_files, is_pickled_index

WEIGHTS_ONLY = "weights_only"
logger = logging.getLogger(__name__)


def settings_of(files: Sequence[Listed], patterns: Sequence[str], pickles: Sequence[Listed] = ()) -> tuple[Listed, ...]:
    """What `patterns` find, without indices of pickles, and without weights in the folders of `pickles`."""
    replaced = {folder_of(file.path) for file in pickles}
    found = (file for file in needed(files, patterns) if not is_pickled_index(file.path))
    return tuple(f for f in found if not (f.path.endswith(WEIGHTS) and folder_of(f.path) in replaced))


def conversion_directory(repository: str, commit: str, patterns: Sequence[str], other: str = "") -> Path:
    """Where what was made of a repository's commit is kept, of the files that `patterns` find.

    `other` is the commit whose weights were put in the place of pickles, if any.
    """
    about = hashlib.sha256(str(tuple(patterns)).encode()).hexdigest()[:8]
    return cache_directory() / CONVERTED / folder_name(repository) / commit / f"{about}{other and '-'}{other[:12]}"


def made_before(target: Path) -> Path | None:
    """The conversion that is at `target`; one whose files are not what they were is removed, and said."""
    if not target.is_dir():
        return None
    if intact(target):
        return target
    logger.warning("%s: files of this conversion are missing or damaged; it is made again", target)
    shutil.rmtree(target, ignore_errors=True)
    return None


def convert_directory(
    source: Path, settings: Sequence[str], pickles: Sequence[str], target: Path, pinned: Mapping[str, str]
) -> Path:
    """Make `target`, whole or not at all: the pickles below `source` converted, and its settings beside them.

    Another process that was faster has made the same. Raises SourceError for pickles of more than tensors, for files
    that are not the pinned ones, and where the disk is full.
    """
    with conversion_room(target) as room:
        _copy(source, settings, room)
        hashes = convert_files(source, pickles, room)
        check_hashes(source, hashes["from"], pinned)
    return target


def same_pickles(target: Path, hashes: Mapping[str, str | None]) -> Path | None:
    """The conversion of just these pickles that was made for another commit than that of `target`."""
    for other in sorted(target.parent.parent.glob(f"*/{escape(target.name)}")):
        if other != target and converted_from(other) == hashes and intact(other):
            return other
    return None


def with_weights_of(other: Path, source: Path, settings: Sequence[str], target: Path) -> Path:
    """Make `target`: what a conversion for another commit holds of weights, with this commit's settings."""
    with conversion_room(target) as room:
        _copy(source, settings, room)
        indices = (path.relative_to(other).as_posix() for path in other.rglob("*.safetensors.index*.json"))
        record = read_json(other / RECORD)
        for name in {*record["to"], *indices}:
            (room / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(other / name, room / name)
            except OSError:  # a file system without links
                shutil.copyfile(other / name, room / name)
        record_beside(room, {"from": record["from"], "to": record["to"]})
    return target


def joined(weights: Path, names: Sequence[str], source: Path, settings: Sequence[str], target: Path) -> Path:
    """Make `target`: links to the files `names` below `weights`, with copies of the settings below `source`."""
    if target.is_dir():
        if all((target / name).is_file() for name in (*names, *settings)) and made_before(target):
            return target
        shutil.rmtree(target, ignore_errors=True)
    with conversion_room(target) as room:
        _copy(source, settings, room)
        record_beside(room, {"from": {}, "to": {}})
        for name in names:
            (room / name).parent.mkdir(parents=True, exist_ok=True)
            (room / name).symlink_to((weights / name).absolute())
    return target


def _copy(source: Path, names: Sequence[str], room: Path) -> None:
    for name in names:
        (room / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, room / name)


@contextmanager
def conversion_room(target: Path) -> Iterator[Path]:
    """A directory beside `target` that gets its name at the end, and vanishes where something fails.

    What killed processes have left is removed: those at work keep theirs locked. SourceError for the disk's errors.
    """
    room = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with ExitStack() as held:
        try:
            for left in target.parent.glob(f".{escape(target.name)}.*.partial"):
                with suppress(OSError), locked(left) as sure:
                    if sure and not _at_work(left):
                        shutil.rmtree(left, ignore_errors=True)
            room.mkdir(parents=True)
            with suppress(OSError):  # a file system without locks
                held.enter_context(locked(room))
            yield room
            _rename(room, target)
        except OSError as error:
            raise SourceError(f"could not write the conversion {target} ({error}); nothing is left") from error
        finally:
            shutil.rmtree(room, ignore_errors=True)


def _at_work(room: Path) -> bool:
    """Whether the process that a room belongs to is alive on this machine: it may not have locked it yet."""
    number = room.name.split(".")[-2]
    try:
        os.kill(int(number), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return int(number) != os.getpid()


def _rename(room: Path, target: Path) -> None:
    """Give the room its name, unless another process that was faster has made the same."""
    try:
        room.rename(target)
    except OSError:
        if not target.is_dir():
            raise
