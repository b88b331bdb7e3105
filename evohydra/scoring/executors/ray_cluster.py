"""Ray as workers need it: a connection to it, what a worker takes of its nodes, and how many they hold."""

import logging
import math
import os
import re
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from types import ModuleType

from evohydra.checks.libraries import optional
from evohydra.files import Plain
from evohydra.scoring.executors.pool import holding_interrupts
from evohydra.scoring.executors.resources import IMPORTS

PATIENCE = 5.0  # seconds that the head of a cluster has to answer at its port
OBJECTS = 256 * 1024**2  # bytes of a local Ray's store: recipes, and what workers are made from
OFF = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # without it Ray prints that this will change
}
OWN = {"RAY_worker_niceness": "0"}  # of a local Ray, whose workers are all that this machine has to do
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # a client's first words: RFC 9113, 3.4 and 6.5
SETTINGS = b"\4"  # the kind of a server's first frame
OTHER_OPTIONS = {"CPU": "cpus_per_worker", "GPU": "gpus_per_worker"}  # of resources
HOST_AND_PORT = re.compile(r"(?P<host>[^:/\s]+|\[[^\]\s]+\]):(?P<port>\d{1,5})")
Node = Plain  # as ray.nodes() tells it


@dataclass(frozen=True)
class Share:
    """What each worker takes of its node; `cpus` are its threads, too."""

    cpus: int
    gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        named = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        return ", ".join(f"{amount:g} {name}" for name, amount in named.items() if amount)


def check_names(resources: Mapping[str, float], environment: Mapping[str, str]) -> None:
    """ValueError where Ray has another option for a resource, or where no variable can have this name or value."""
    for name in resources:
        if name in OTHER_OPTIONS:
            raise ValueError(
                f"executor.resources: expected none called {name}, which executor.{OTHER_OPTIONS[name]} gives"
            )
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(
                "executor.environment: expected a name without '=' and a text without a zero byte, "
                f"got {name!r}: {value!r}"
            )


ASKS_FOR_A_TOKEN = (  # Ray's own error is the same as that of a Ray that has gone
    ". A Ray that was begun with `ray start` may ask for a token: then set RAY_AUTH_MODE=token for this command, too "
    "(the token is in ~/.ray/auth_token, or in RAY_AUTH_TOKEN)"
)


def ray_library() -> ModuleType:
    """The library; ValueError where it is not installed."""
    os.environ.update(OFF)  # before it is imported
    found: ModuleType = optional("ray", "executor=ray", "evohydra[ray]")
    return found


def start(cpus: int, gpus: int) -> None:
    """Start a Ray on this machine, which ends with this process or with `ray.shutdown()`."""
    for key, value in OWN.items():
        os.environ.setdefault(key, value)
    with holding_interrupts():
        _initialise(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            object_store_memory=OBJECTS,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
        )


def connect(address: str) -> None:
    """Connect this process to the Ray at `address`; ValueError, within seconds, where there is none."""
    given, address = address, os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    expected = "expected the address of a running Ray, host:port, or auto for that of this machine"
    if address != "auto":
        found = HOST_AND_PORT.fullmatch(address)
        if found is None:
            raise ValueError(f"executor.address: {expected}, got {address!r}")
        if why := silence(found["host"].strip("[]"), int(found["port"])):
            raise ValueError(f"executor.address: {expected}, got {address!r}, where no Ray answers: {why}")
    try:
        _initialise(address=address)
    except (OSError, RuntimeError, ValueError, ray_library().exceptions.RayError) as error:
        said = " ".join(str(error).split())
        token = "" if os.environ.get("RAY_AUTH_MODE") == "token" else ASKS_FOR_A_TOKEN
        raise ValueError(f"executor.address: {expected}, got {given!r}: {said}{token}") from error


def silence(host: str, port: int) -> str:
    """Why no server of Ray answers there; "" if one does. It speaks gRPC, which begins with settings of HTTP/2.

    Ray's own library waits for minutes where something else listens, and then ends the process.
    """
    try:
        with closing(socket.create_connection((host, port), PATIENCE)) as connection:
            connection.settimeout(PATIENCE)
            connection.sendall(HTTP2)
            came = connection.recv(4)
    except (OSError, OverflowError) as error:
        return str(error)
    return "" if came[3:4] == SETTINGS else "what listens there is no Ray"


@dataclass(frozen=True)
class Lifelines:
    """Where this process's Ray is to be heard: its head, and the node that this process is on."""

    head: tuple[str, int]
    node: tuple[str, int]

    @classmethod
    def found(cls) -> "Lifelines":
        """Those of the Ray to which this process is connected."""
        ray = ray_library()
        context = ray.get_runtime_context()
        host, _, port = context.gcs_address.rpartition(":")
        here = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
        return cls((host.strip("[]"), int(port)), (here["NodeManagerAddress"], here["NodeManagerPort"]))

    def head_lost(self) -> str:
        """Why the head does not answer; "" if it does."""
        return _lost("its head", self.head)

    def node_lost(self) -> str:
        """Why the node of this process does not answer; "" if it does."""
        return _lost("its node on this machine", self.node)


def _lost(name: str, at: tuple[str, int]) -> str:
    why = silence(*at)
    return why and f"{name} ({at[0]}:{at[1]}) does not answer any more: {why}"


def _initialise(**settings: object) -> None:
    ray = ray_library()
    if ray.is_initialized():
        raise ValueError("executor=ray: this process is connected to a Ray already; expected none, call ray.shutdown()")
    chosen = signal.getsignal(signal.SIGTERM)
    ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **settings)
    if chosen is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, chosen)  # Ray's own would end this process without a word


def room(nodes: Sequence[Node], share: Share, worker_bytes: int) -> dict[str, int]:
    """How many workers each living node holds, by its id; where they have no GPU, its memory counts too."""
    return {node["NodeID"]: _fitting(node["Resources"], share, worker_bytes) for node in nodes if node["Alive"]}


def _fitting(has: Mapping[str, float], share: Share, worker_bytes: int) -> int:
    takes = {"CPU": float(share.cpus), "GPU": share.gpus, **share.resources}
    fitting = min(math.floor(has.get(name, 0.0) / amount + 1e-6) for name, amount in takes.items() if amount)
    if share.gpus or "memory" not in has:
        return fitting
    return min(fitting, max(1, int(has["memory"] // (IMPORTS + worker_bytes))))


def has_gpus(nodes: Sequence[Node]) -> bool:
    """Whether a living node has one."""
    return any(node["Alive"] and node["Resources"].get("GPU", 0) > 0 for node in nodes)
