"""Starts that fail: one sentence for the user, and nothing left in outputs/."""

import io
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

RUN = "run="
QUOTES = "'\""
_began: list[float] = []  # when this command began, by the clock of files


def check_run(name: object) -> None:
    """ValueError for a name of a run that is not that of a directory in outputs/, or in one of its directories."""
    if {"", ".", ".."} & set(str(name).split("/")):
        raise ValueError(f"run: expected the name of a directory in outputs/, got {name!r}")


def check_given_run(overrides: Sequence[str]) -> None:
    """The same for the overrides of a command line: before Hydra makes the directory."""
    for text in overrides:
        if text.startswith(RUN):
            for name in text.removeprefix(RUN).split(","):
                check_run(name.strip(" " + QUOTES))


class _Held(io.StringIO):
    """What is written to a stream, which gets it later or never."""

    def __init__(self, stream: io.TextIOBase) -> None:
        super().__init__()
        self.stream = stream


@contextmanager
def held_messages() -> Iterator[None]:
    """Keep back what is written to the standard error, until `let_through`; what is left at the end is written then.

    Hydra says at length what is wrong with a command line; `drop_messages` is for where we know it better.
    """
    before = sys.stderr
    sys.stderr = _Held(before)  # type: ignore[arg-type]
    try:
        yield
    finally:
        let_through()
        sys.stderr = before


def let_through() -> None:
    """Write what was kept back, and keep nothing back from now on."""
    if isinstance(sys.stderr, _Held):
        kept, sys.stderr = sys.stderr.getvalue(), sys.stderr.stream
        sys.stderr.write(kept)


def keeps_messages() -> bool:
    """Whether messages are kept back still: no job has begun in this process."""
    return isinstance(sys.stderr, _Held)


def drop_messages() -> None:
    """Forget what was kept back, and keep nothing back from now on."""
    if isinstance(sys.stderr, _Held):
        sys.stderr = sys.stderr.stream


def begin() -> None:
    """Note that the command begins: a directory that is older is not its own."""
    _began[:] = [time.time()]


def leave_nothing(directory: Path, settings: str | None, log: str) -> bool:
    """Delete a run's `directory` that holds nothing but what Hydra has put there; whether it did.

    One that was there before the command began stays: another command may be reading its sources.
    settings: the name of the directory of Hydra's own files; log: that of the log.
    """
    if directory.is_symlink() or not directory.is_dir() or any(directory.stat().st_mtime < at for at in _began):
        return False
    if not {each.name for each in directory.iterdir()} <= {settings, log}:
        return False
    for handler in [*logging.getLogger().handlers]:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == directory.absolute():
            logging.getLogger().removeHandler(handler)
            handler.close()
    shutil.rmtree(directory)
    return True


def is_a_sentence(error: BaseException) -> bool:
    """Whether an error's text stands for itself: what evohydra says of values and files, not what others fail with."""
    return type(error).__module__.split(".")[0] == "evohydra" or type(error) is ValueError
