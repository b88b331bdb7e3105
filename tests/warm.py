"""`python -m MODULE ARGUMENTS` in processes that part from one which has imported everything already.

Each is a process of its own from `runpy` to the interpreter's end, as `python -m` is; it saves the 6 s of importing.
At the end threads are waited for and what is registered for the end is done; only taking modules apart is left out,
which takes as long as refusing a wrong option does. What is told by imports themselves, and what they read of the
environment, is for processes that begin from nothing.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

# Beginnings of variables that Python, libraries that are loaded already or their threads read when they start.
AT_START = (
    "ATEN_", "CUDA", "DIFFUSERS_", "GOMP_", "HF_", "HOME", "HUGGING", "HYDRA_", "KMP_", "LANG", "LC_", "LD_", "MALLOC_",
    "MKL_", "MPL", "NUMEXPR_", "OMP_", "ONEDNN_", "OPENBLAS_", "PYTHON", "TOKENIZERS_", "TORCH", "TQDM_",
    "TRANSFORMERS_", "XDG_",
)  # fmt: skip


class Warm:
    """Starts commands in the environment that it is made with."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.warm"],
            cwd=Path(__file__).resolve().parent.parent,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the process that commands part from."""
        self._server.communicate()

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether commands that begin here notice nothing of the environment of their own."""
        mine, its = ({k: v for k, v in e.items() if k.startswith(AT_START)} for e in (self.environment, environment))
        return mine == its

    def run(
        self, module: str, arguments: list[str], cwd: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The command to its end, with nobody at the keyboard; in an environment that `fits`, if not in that here."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with tempfile.TemporaryDirectory() as directory:
            out, err = Path(directory) / "out", Path(directory) / "err"
            request = {"module": module, "arguments": arguments, "cwd": str(cwd), "out": str(out), "err": str(err)}
            given = {"environment": {**(environment or self.environment)}}
            print(json.dumps({**request, **given}), file=self._server.stdin, flush=True)
            answer = self._server.stdout.readline()
            assert answer, "the process that commands part from has ended"
            return subprocess.CompletedProcess([module, *arguments], int(answer), out.read_text(), err.read_text())

    def start(self, module: str, arguments: list[str], cwd: Path, output: Path) -> "Parted":
        """Start the command in a process group of its own, whose output is added to a file."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        status = Path(tempfile.mkdtemp()) / "status"
        request = {"module": module, "arguments": arguments, "cwd": str(cwd), "out": str(output), "err": str(output)}
        print(json.dumps({**request, "status": str(status)}), file=self._server.stdin, flush=True)
        return Parted(int(self._server.stdout.readline()), status)


class Parted:
    """A command that has been started, as Popen knows it."""

    def __init__(self, pid: int, status: Path) -> None:
        self.pid, self._status = pid, status

    def poll(self) -> int | None:
        """What it ended with, None while it is at work."""
        return int(self._status.read_text()) if self._status.exists() else None

    def wait(self, timeout: float = float("inf")) -> int:
        """What it ends with; TimeoutExpired after so many seconds."""
        until = time.monotonic() + timeout
        while (ended := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.002)
        return ended


def become(request: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Take on the files, the directory and the environment of a command."""
    for number, (file, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), *((request[key], os.O_WRONLY | os.O_CREAT | os.O_APPEND) for key in ("out", "err"))]
    ):
        opened = os.open(file, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it stays open to the end
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]


def fork_watched(status: Path) -> int:
    """As os.fork, but the child leads a group of its own, and a process between writes what it ends with to a file."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        with open(reading) as pipe:
            return int(pipe.read())
    if child := os.fork():
        os.close(writing)
        _, ended = os.waitpid(child, 0)
        partial = status.with_suffix(".partial")
        partial.write_text(str(os.waitstatus_to_exitcode(ended)))
        partial.replace(status)
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a command in a shell's background has it ignored
    os.write(writing, str(os.getpid()).encode())
    os.close(reading)
    os.close(writing)
    return 0


def end(code: object) -> NoReturn:
    """What the interpreter does after `sys.exit(code)`, but for taking modules apart."""
    status = code if isinstance(code, int) else int(code is not None)
    if status and code is not status:
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status & 0xFF)


def main() -> None:
    """Serve requests, a line of JSON each; return in the process that parted, not in this one."""
    import matplotlib.backends.backend_agg
    import matplotlib.pyplot  # noqa: F401
    import sklearn.metrics  # noqa: F401

    import evohydra.assembly.runs
    import evohydra.families.causal_lm
    import evohydra.report.gathering
    import evohydra.scoring.benchmarks.lm_eval_benchmark
    import evohydra.winner.writer  # noqa: F401

    own = dict(os.environ)
    gc.freeze()  # so that a collection does not copy every page that is shared
    for line in sys.stdin:
        request = json.loads(line)
        with suppress(ChildProcessError):  # those that watched earlier commands
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        child = os.fork() if "status" not in request else fork_watched(Path(request["status"]))
        if child == 0:
            become(request, request.get("environment", own))
            sys.argv = [request["module"], *request["arguments"]]
            try:
                runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
            except SystemExit as ending:
                end(ending.code)
            end(None)
        if "status" in request:
            print(child, flush=True)
            continue
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
