"""`python -m MODULE ARGUMENTS` in processes that part from one which has imported everything already.

Each is a process of its own from `runpy` to the interpreter's end, as `python -m` is; it saves the 6 s of importing.
What is told by imports themselves, and what the environment changes, is for processes that begin from nothing.
"""

import gc
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path


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

    def run(self, module: str, arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        """The command to its end, with nobody at the keyboard."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with tempfile.TemporaryDirectory() as directory:
            out, err = Path(directory) / "out", Path(directory) / "err"
            request = {"module": module, "arguments": arguments, "cwd": str(cwd), "out": str(out), "err": str(err)}
            print(json.dumps(request), file=self._server.stdin, flush=True)
            answer = self._server.stdout.readline()
            assert answer, "the process that commands part from has ended"
            return subprocess.CompletedProcess([module, *arguments], int(answer), out.read_text(), err.read_text())


def become(request: Mapping[str, str]) -> None:
    """Take on the files and the directory of a command."""
    for number, (file, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), *((request[key], os.O_WRONLY | os.O_CREAT) for key in ("out", "err"))]
    ):
        opened = os.open(file, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it stays open to the end
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]


def main() -> None:
    """Serve requests, a line of JSON each; return in the process that parted, not in this one."""
    import evohydra.assembly.runs
    import evohydra.families.causal_lm
    import evohydra.report.gathering
    import evohydra.scoring.benchmarks.lm_eval
    import evohydra.winner.writer  # noqa: F401

    gc.freeze()  # so that a collection does not copy every page that is shared
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            become(request)
            sys.argv = [request["module"], *request["arguments"]]
            runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
            sys.exit()
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
