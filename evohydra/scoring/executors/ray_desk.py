"""What a worker's actor does on its node of Ray: make the worker, then answer one request after the other."""

import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from evohydra.scoring.executors.parcels import Layout
from evohydra.scoring.executors.serving import begin, carried_out, packed, unpacked

if TYPE_CHECKING:
    from evohydra.scoring.worker import Worker


class Desk:
    """The actor: a process with one worker. Its answers are pickled pairs, see `Kind`."""

    def __init__(self, directory: str, threads: int) -> None:
        self._directory, self._threads = directory, threads
        self._where = ""
        self._worker: Worker | None = None
        self._layouts: dict[int, Layout] = {}

    def make(self, make: bytes) -> bytes:
        """Make the worker, in the directory in which the command was given."""
        import ray

        self._where = f"process {os.getpid()} on node {ray.util.get_node_ip_address()}"
        try:
            _check_seen([Path(self._directory)], self._where)
            os.chdir(self._directory)
            begin(self._threads)
            self._worker = pickle.loads(make)()
        except BaseException as error:
            return packed("raised", error)
        return self.alive()

    def alive(self) -> bytes:
        """That it is ready, and where."""
        return packed("ready", self._where)

    def carry_out(self, request: bytes, seen: list[Path]) -> bytes:
        """A pickled function with its arguments; `seen` are paths that have to be there."""
        try:
            _check_seen(seen, self._where)
            task, given = unpacked(request, self._layouts)
            assert self._worker is not None, "it is asked once it is ready"
        except Exception as error:
            return packed("raised", error)
        return packed(*carried_out(self._worker, task, given))


def _check_seen(paths: list[Path], where: str) -> None:
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is there for the command, but not for its worker ({where}): expected a directory on a file "
                "system that all nodes of Ray share"
            )
