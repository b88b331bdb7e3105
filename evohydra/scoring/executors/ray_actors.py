"""Workers as actors of Ray: on this machine, or on the nodes of a cluster, which may come and go."""

import logging
import math
import os
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Gt

from evohydra.checks import CountOrAuto, Natural, NotNegative, Positive
from evohydra.scoring.executors import MakeWorker
from evohydra.scoring.executors.elsewhere import check_ray, versions_in
from evohydra.scoring.executors.pool import Pool, Said, Seat
from evohydra.scoring.executors.ray_cluster import (
    Lifelines,
    Share,
    check_names,
    connect,
    has_gpus,
    ray_library,
    room,
    start,
)
from evohydra.scoring.executors.ray_desk import Desk
from evohydra.scoring.executors.resources import gpus_here, places, usable_cores
from evohydra.scoring.job import MachineError

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

logger = logging.getLogger(__name__)
LOOK = 3.0  # seconds between two looks at the nodes
GRACE = 15.0  # seconds that a head may be silent, as where it is started again
PENDING = 30.0  # seconds without a worker after which the run says so
PASSED_ON = (  # what `evohydra` sets for its libraries; the nodes of a cluster do not know it
    "TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_OFFLINE",
    "TOKENIZERS_PARALLELISM", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY",
)  # fmt: skip


@dataclass
class _Actor(Seat):
    """A worker's actor, and the reference of its answer that is still to come."""

    handle: "ActorHandle"
    answer: "ObjectRef"


class RayActors(Pool[_Actor]):
    """`workers` actors of Ray, of a local one that the run starts and ends, or of a cluster's at `address`.

    workers: "auto" is one for each GPU, or as many as CPUs and memory allow; on a cluster it follows the nodes. A
    number is the most there will be: those that find no room wait for it. cpus_per_worker are a worker's threads, too;
    "auto" shares the cores of this machine, and is 1 on a cluster. gpus_per_worker may be fractions; "auto" is 1 where
    there are GPUs. resources: others of the cluster. placement: over as many nodes as can be, or one node after the
    other. straggler, limit, together: see `Pool`. environment: variables of the workers. python: of another
    environment, in which they run, on all nodes; None: this one. An actor that dies is replaced, and its job tried
    again up to `retries` times.
    """

    def __init__(
        self, *, make: MakeWorker, address: str | None = None, workers: CountOrAuto = "auto",
        cpus_per_worker: CountOrAuto = "auto", gpus_per_worker: NotNegative | Literal["auto"] = "auto",
        resources: Mapping[str, Positive] | None = None, placement: Literal["spread", "pack"] = "spread",
        retries: Natural = 2, straggler: Annotated[float, Gt(1)] | None = None,
        limit: Positive | None = None, environment: Mapping[str, str] | None = None, python: str | None = None,
        worker_bytes: int = 0, together: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(retries, straggler, limit, together)
        check_names(resources or {}, environment or {})
        self._ray = ray_library()
        if python is not None:
            versions_in(python)  # which it is looked at for
            check_ray(python)
        self._python = python
        self._make = make
        self._address, self._workers = address, workers
        self._cpus, self._gpus, self._resources = cpus_per_worker, gpus_per_worker, dict(resources or {})
        self._placement, self._environment = placement, dict(environment or {})
        self._worker_bytes = worker_bytes
        self._share = Share(1)
        self._connected = self._lost = False
        self._lifelines: Lifelines | None = None
        self._made: ObjectRef | None = None  # the reference of what makes a worker
        self._count = 0  # of seats that there have been
        self._room = 1  # for so many workers, when nodes were looked at
        self._looked = -math.inf  # when that was
        self._alone = 0.0  # since when no worker is ready
        if address is None:
            self._share, self._workers = self._of_this_machine()

    def _of_this_machine(self) -> tuple[Share, int]:
        """What each worker takes of this machine, and how many there are. ValueError where they do not fit."""
        if self._resources:
            raise ValueError(
                f"executor.resources: expected none for a Ray on this machine, got {self._resources}; "
                "they are a cluster's, which executor.address names"
            )
        gpus = gpus_here()
        each = (1.0 if gpus else 0.0) if self._gpus == "auto" else float(self._gpus)
        fitting = math.floor(gpus / each + 1e-6) if each else 0
        if each and fitting < (1 if self._workers == "auto" else int(self._workers)):
            raise ValueError(
                f"executor.gpus_per_worker: expected so little that {self._workers} workers fit on {gpus} GPUs, got "
                f"{each:g}"
            )
        wanted = fitting if each and self._workers == "auto" else self._workers
        here = places(wanted, self._cpus, self._worker_bytes, gpus=0)
        return Share(here.threads, each), here.workers

    @property
    def workers(self) -> int:
        """How many there are to be."""
        if self._workers != "auto":
            return int(self._workers)
        self._connect()
        if time.monotonic() > self._looked + LOOK:
            self._look_at_nodes()
        return self._room

    def _look_at_nodes(self) -> None:
        self._check_ray()
        self._looked = time.monotonic()
        self._room = max(1, sum(room(self._ray.nodes(), self._share, self._worker_bytes).values()))

    def _connect(self) -> None:
        if self._connected:
            return
        self._connected = True
        if self._address is None:
            start(
                max(usable_cores(), self.workers * self._share.cpus),
                gpus_here() if self._share.gpus else 0,
            )
        else:
            connect(self._address)
            gpus = float(has_gpus(self._ray.nodes())) if self._gpus == "auto" else float(self._gpus)
            self._share = Share(1 if self._cpus == "auto" else int(self._cpus), gpus, self._resources)
        self._lifelines = Lifelines.found()
        self._made = self._ray.put(pickle.dumps(self._make))
        self._alone = time.monotonic()

    def _begin(self) -> None:
        """Start the workers that are wanted; ask idle ones whether they are alive, for Ray does not tell."""
        self._connect()
        self._fit()
        for seat in self._seats:
            if seat.free:
                seat.asked, seat.answer = True, seat.handle.alive.remote()

    def _fit(self) -> None:
        """As many workers as there is room for; those that wait for a node that is gone are given up."""
        wanted = self.workers
        while len(self._seats) < wanted:
            handle, answer = self._started()
            self._seats.append(_Actor(self._count, handle, answer))
            self._count += 1
        for seat in [seat for seat in self._seats[::-1] if not seat.ready][: len(self._seats) - wanted]:
            self._ray.kill(seat.handle)
            self._seats.remove(seat)

    def _started(self) -> "tuple[ActorHandle, ObjectRef]":
        """A new actor, and the reference of its word that it is ready."""
        passed_on = {key: os.environ[key] for key in PASSED_ON if key in os.environ} if self._address else {}
        environment = {**passed_on, **self._environment}
        settings: dict[str, object] = {"env_vars": environment} if environment else {}
        if self._python is not None:
            settings["py_executable"] = self._python
        actor = self._ray.remote(Desk).options(
            num_cpus=self._share.cpus, num_gpus=self._share.gpus, resources=self._resources or None, max_restarts=0,
            max_task_retries=0, scheduling_strategy={"spread": "SPREAD", "pack": "DEFAULT"}[self._placement],
            runtime_env=settings or None,
        )  # fmt: skip
        handle = actor.remote(os.getcwd(), self._share.cpus)
        return handle, handle.make.remote(self._made)

    def _send(self, seat: _Actor, task: Callable[..., object], given: tuple[object, ...]) -> None:
        seen = [path for path in given if isinstance(path, Path) and path.exists()]
        seat.answer = seat.handle.carry_out.remote(pickle.dumps((task, given)), seen)

    def _said(self) -> Said[_Actor]:
        answered: list[ObjectRef] = []
        while not answered:
            if time.monotonic() > self._looked + LOOK:
                self._look()
            waiting = {seat.answer: seat for seat in self._seats if seat.asked}
            answered, _ = self._ray.wait([*waiting], num_returns=1, timeout=LOOK)
        seat = waiting[answered[0]]
        try:
            kind, content = pickle.loads(self._ray.get(answered[0]))
        except self._ray.exceptions.RayError as error:
            self._check_ray()
            return seat, "died", f"worker {seat.number} ({seat.where}) died: {_reason(error)}"
        if kind == "ready":
            seat.where = content
        return seat, kind, content

    def _look(self) -> None:
        """Fit the workers to the nodes; say where none finds room, and which have been silent for long."""
        self._look_at_nodes()
        self._name_silent()
        self._end_overdue()
        self._fit()
        self._help_stragglers()
        if any(seat.ready for seat in self._seats):
            self._alone = time.monotonic()
        elif time.monotonic() > self._alone + PENDING:
            self._alone = time.monotonic()
            logger.warning(
                "no worker is ready; each needs %s, the nodes of Ray have %s", self._share,
                [dict(node["Resources"]) for node in self._ray.nodes() if node["Alive"]],
            )  # fmt: skip

    def _check_ray(self) -> None:
        """MachineError where Ray is lost. Its own library would end this process without a word that helps."""
        assert self._lifelines is not None
        until = time.monotonic() + GRACE
        while not (why := self._lifelines.node_lost()) and (why := self._lifelines.head_lost()):
            if time.monotonic() > until:
                break
            time.sleep(1.0)
        if why:
            self._lost = True
            raise MachineError(
                f"Ray is lost: {why}. All scores so far are kept; give the same command again when Ray is back"
            )

    def _end(self, seat: _Actor) -> None:
        self._ray.kill(seat.handle)

    def _restart(self, seat: _Actor) -> None:
        self._ray.kill(seat.handle)
        seat.handle, seat.answer = self._started()
        seat.where = "not placed yet"

    def close(self) -> None:
        """End all workers, those that work on something too; a local Ray ends, a cluster is left as it was."""
        if self._connected:
            for seat in self._seats if not self._lost else ():
                self._ray.kill(seat.handle)
            self._ray.shutdown()
        self._seats, self._connected = [], False


def _reason(error: Exception) -> str:
    """Ray's reason for the end of an actor, in a line."""
    return " ".join(str(error).split())
