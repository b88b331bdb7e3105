"""What files of models say is to be done (templates, rules of tokenizers): tried elsewhere, then done within a time."""

import ctypes
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SECONDS = 10.0  # of computing; templates and tokenizers of real models take milliseconds for a text
MEMORY = 2 * 2**30  # bytes of address space, of which libraries take a part
START = 60.0  # seconds of a clock for a process to begin on a machine that does much else
PROGRAM = Path(__file__).with_name("trial.py")


class BeyondBoundsError(ValueError):
    """What takes too long, or too much memory, or gives too much: in words that follow "it"."""


class FailedTrialError(ValueError):
    """What fails when it is tried; the words are the library's."""


def tried(what: str, **request: object) -> int:
    """The length that `trial.py` finds for this request: `template` with variables, or `tokenizer` with parts and text.

    Raises BeyondBoundsError where that takes more than `SECONDS` or `MEMORY`, or ends the process, and FailedTrialError
    with the library's words.
    """
    asked = json.dumps({"what": what, "seconds": SECONDS, "memory": MEMORY, **request})
    too_long = f"takes more than {SECONDS:g} s"
    try:
        done = subprocess.run(
            [sys.executable, str(PROGRAM)], input=asked.encode(), capture_output=True, timeout=SECONDS + START
        )
    except subprocess.TimeoutExpired as error:
        raise BeyondBoundsError(too_long) from error
    ended = -done.returncode
    if hasattr(signal, "SIGXCPU") and ended in (signal.SIGXCPU, signal.SIGKILL):
        raise BeyondBoundsError(too_long)
    answer = _answer(done.stdout)
    if "memory" in answer or ended == signal.SIGABRT:  # Rust aborts where it gets no memory
        raise BeyondBoundsError(f"takes more than {MEMORY / 2**30:g} GiB of memory")
    if done.returncode != 0 or not answer:
        said = done.stderr.decode(errors="replace").strip()[-200:]
        raise BeyondBoundsError(f"ends the process that tries it (status {done.returncode}: {said})")
    if "error" in answer:
        raise FailedTrialError(str(answer["error"]))
    return int(str(answer["length"]))


def _answer(output: bytes) -> Mapping[str, object]:
    try:
        answer = json.loads(output)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


class _OutOfTimeError(BaseException):
    """Raised in the middle of other code, which is not to handle it."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """BeyondBoundsError where Python code inside takes longer, in whatever thread it runs.

    One call into a library that is not Python is not interrupted: the error is raised when it ends.
    """
    thread, lock, over = ctypes.c_ulong(threading.get_ident()), threading.Lock(), False

    def end() -> None:
        with lock:
            if not over:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_OutOfTimeError))

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        try:
            yield
        finally:
            with lock:
                over = True
            timer.cancel()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)  # one that was not yet raised
    except _OutOfTimeError as error:
        raise BeyondBoundsError(f"takes more than {seconds:g} s") from error
