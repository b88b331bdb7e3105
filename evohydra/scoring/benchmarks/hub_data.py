"""Data sets of the hub: at which commit they were read, and why they could not be."""

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path

import datasets
import huggingface_hub
from datasets import Dataset
from jinja2 import UndefinedError

from evohydra.files import read_json
from evohydra.hub import cache_directory
from evohydra.hub.asking import ask
from evohydra.hub.messages import hub_errors, unreachable
from evohydra.hub.notes import write_note
from evohydra.scoring.benchmarks import BenchmarkError

COMMIT = re.compile(r"[0-9a-f]{40}")
logger = logging.getLogger(__name__)


def check_commit(name: str, data_set: object, revision: str | None, splits: Iterable[Dataset]) -> None:
    """Log at which commit `data_set` of the hub was read for `name`; nothing is said of files of one's own.

    The datasets library keeps files in a folder that is called by the commit. Without the hub it takes what it has
    read last, of whatever revision. Raises BenchmarkError where that is another commit than `revision` pins, or than
    the branch is at, or was when the hub was last asked.
    """
    folders = {Path(file["filename"]).parent.name for data in splits for file in getattr(data, "cache_files", ())}
    for commit in sorted(filter(COMMIT.fullmatch, folders)):
        logger.info("%s: data set %s@%s", name, data_set, commit)
        expected, told = _expected(str(data_set), revision)
        if expected is None:
            logger.warning("%s: the hub does not answer; data set %s is read at commit %s", name, data_set, commit)
        elif expected != commit:
            raise BenchmarkError(
                f"{name}: data set {data_set} was read from the cache at commit {commit}, but {told} {expected}; "
                "run the same command again where the hub can be reached, or give a copy of the data set's "
                "repository: benchmark.<name>.data_dir=/data/NAME"
            )


def _expected(data_set: str, revision: str | None) -> tuple[str | None, str]:
    """The commit that should be read and what says so; None where nothing does."""
    if revision and COMMIT.fullmatch(revision):
        return revision, "the task pins"
    about = hashlib.sha256(str((data_set, revision)).encode()).hexdigest()[:32]
    note = cache_directory() / "data" / f"{about}.json"
    try:
        commit = str(ask(lambda: huggingface_hub.HfApi().dataset_info(data_set, revision=revision)).sha)
    except hub_errors():
        try:
            return str(read_json(note)["commit"]), "the hub, which does not answer now, had it last at"
        except (OSError, ValueError, KeyError):
            return None, ""
    write_note(note, {"data_set": data_set, "revision": revision, "commit": commit})
    return commit, "the hub has it at"


@contextmanager
def as_they_are_now(*places: object) -> Iterator[None]:
    """Within: the datasets library reads those places that are directories on this machine as they are now.

    Its cache goes by a directory's name and README.md alone: data that were written anew, and those of another
    directory of that name, would be the old ones without a word. Here it goes by the contents of all files.
    """
    directories = [Path(place).expanduser() for place in dict.fromkeys(places) if isinstance(place, str) and place]
    found = [_contents(directory) for directory in directories if directory.is_dir()]
    if not found:
        yield
        return
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = (
        Path(before) / f"evohydra-{hashlib.sha256(str(found).encode()).hexdigest()[:32]}"
    )
    try:
        yield
    finally:
        datasets.config.HF_DATASETS_CACHE = before


def _contents(directory: Path) -> str:
    state = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            hashed = hashlib.file_digest(file, "sha256").hexdigest()
        state.update(f"{path.relative_to(directory).as_posix()} {hashed}\n".encode())
    return state.hexdigest()


def why_unread(data_set: str, error: Exception, local: str) -> str:
    """Why `data_set` could not be read, and what to do; `local` says how files of one's own are given."""
    if isinstance(error, UndefinedError):
        return f"{data_set} lacks a column that the task asks for: {error}. Give data with the task's columns: {local}"
    if isinstance(error, KeyError):
        return f"{data_set} has no split {error}, which the task asks for. Give files for its splits: {local}"
    told = f"{type(error).__name__}: {str(error)[:300]}"
    if any(unreachable(each) for each in _causes(error) if not isinstance(each, JSONDecodeError)):
        return f"{data_set} could not be read from the hub or its cache ({told}). Without a network give {local}"
    return f"{data_set} could not be read ({told}). Give data that can be: {local}"


def _causes(error: BaseException | None) -> Iterable[Exception]:
    while error is not None:
        if isinstance(error, Exception):
            yield error
        error = error.__cause__ or error.__context__
