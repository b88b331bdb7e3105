"""Commands from Python: options as they are written, and a command in a process of its own."""

import math
import numbers
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

WORD = re.compile(r"[A-Za-z_./~][\w./+@~-]*")  # what Hydra reads as a text as it stands
RESERVED = {"null", "true", "false", "nan", "inf"}
ENDS_WITH_CALLER = "EVOHYDRA_ENDS_WITH_CALLER"  # a variable of the environment of commands that are run from Python
TAIL = 40  # lines of what a command says about its end


def override(key: str, value: object) -> str:
    """An option as it is written on the command line; TypeError for a value that cannot be."""
    return f"{key}={_written(key, value)}"


def _written(key: str, value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        if not math.isfinite(value):
            raise ValueError(f"{key}: expected a finite number, got {value}")
        return repr(float(value))
    if isinstance(value, str | os.PathLike):
        return _quoted(os.fspath(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_quoted(str(name))}: {_written(key, each)}" for name, each in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_written(key, each) for each in value) + "]"
    raise TypeError(f"{key}: expected a text, a number, true or false, None, a list or a mapping, got {value!r}")


def _quoted(text: str) -> str:
    if WORD.fullmatch(text) and text.lower() not in RESERVED:
        return text
    # Before a quote, and at the end, a backslash is one of Hydra's; elsewhere it stands for itself.
    escaped = re.sub(r"(\\*)(')", r"\1\1\\\2", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def directory_of(given: Sequence[str], usual: Path) -> Path:
    """Where the run will be."""
    chosen = [text.partition("=")[2] for text in given if text.startswith("hydra.run.dir=")]
    return Path(chosen[-1].strip("'\"")) if chosen else usual


def carried_out(command: Sequence[str], show: bool) -> tuple[int, list[str]]:
    """A command to its end: its exit status, and what it said on its standard error.

    Ctrl-C, or a notebook's button to interrupt, ends it as at a terminal, and raises KeyboardInterrupt here. So it ends
    where this process is killed: its standard input is then closed.
    """
    own_terminal = show and _is_terminal(sys.stdout)
    out = None if own_terminal else subprocess.PIPE if show else subprocess.DEVNULL
    said: list[str] = []
    environment = {**os.environ, ENDS_WITH_CALLER: "1"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    ) as process:
        told = [(process.stderr, sys.stderr if show else None, said), (process.stdout, sys.stdout, [])]
        readers = [threading.Thread(target=_tell, args=each, daemon=True) for each in told if each[0] is not None]
        for reader in readers:
            reader.start()
        try:
            code = _ended(process)
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        finally:
            for reader in readers:
                reader.join()
    return code, said


def _ended(process: subprocess.Popen[str]) -> int:
    """Its exit status. Waits in short steps: a long one does not end where another thread takes Ctrl-C."""
    while True:
        try:
            return process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            continue


def _is_terminal(stream: object) -> bool:
    """Whether a stream is this process's own standard output, and a terminal."""
    try:
        return stream is sys.__stdout__ and os.isatty(1)
    except (OSError, ValueError):
        return False


def _tell(stream: IO[str] | None, to: IO[str] | None, kept: list[str]) -> None:
    assert stream is not None
    for line in stream:
        kept.append(line.rstrip("\n"))
        del kept[:-TAIL]
        if to is not None:
            to.write(line)
            to.flush()
