"""What a worker's process does: make the worker, then answer one request after the other."""

import gc
import logging
import os
import pickle
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Literal

from tqdm import tqdm

from evohydra.scoring.executors.parcels import Layout, Parcel, unpack
from evohydra.scoring.job import DeviceError, Evaluation, Job, MachineError

if TYPE_CHECKING:
    from evohydra.scoring.worker import Worker

# Of an answer; with it comes a result, a reason or an exception. A worker that is sick ends by itself.
Kind = Literal["ready", "done", "machine", "sick", "raised"]


def serve(connection: Connection, make: bytes, environment: Mapping[str, str], threads: int) -> None:
    """Answer requests, pairs of a pickled function and its arguments, until the connection is closed.

    `make` is the pickled function that makes the worker; it is not read before `environment` is all of the environment.
    """
    os.environ.clear()
    os.environ.update(environment)
    begin(threads)
    try:
        worker = pickle.loads(make)()
    except BaseException as error:
        connection.send_bytes(packed("raised", error))
        return
    with suppress(EOFError, OSError):  # the driver has closed the connection, or is dead
        connection.send_bytes(packed("ready", None))
        layouts: dict[int, Layout] = {}
        while True:
            kind, content = carried_out(worker, *unpacked(connection.recv_bytes(), layouts))
            connection.send_bytes(packed(kind, content))
            if kind == "sick":
                connection.close()
                os._exit(1)  # what else would be done at an end might wait for the device for ever


def begin(threads: int) -> None:
    """Set up the process of a worker. threads: of torch on a CPU, unless the run sets them itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver ends its workers
    import torch

    torch.set_num_threads(threads)
    tqdm.set_lock(threading.RLock())  # instead of a semaphore, which a worker that is stopped would leave behind
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)


def evaluate(worker: "Worker", job: Job, *ahead: Job) -> Evaluation:
    """What the worker makes of a job; `ahead` are those that it gets next."""
    return worker.evaluate(job, *ahead)


def carried_out(worker: "Worker", task: Any, given: tuple[object, ...]) -> tuple[Kind, object]:
    """What `task(worker, *given)` gives, or why it gives nothing."""
    try:
        return "done", task(worker, *given)
    except DeviceError as error:
        return "sick", str(error)
    except MachineError as error:
        worker.recover()
        return "machine", str(error)
    except Exception as error:
        return "raised", error


def unpacked(request: bytes, layouts: dict[int, Layout]) -> tuple[Any, tuple[object, ...]]:
    """The task that the driver has pickled and its arguments, with a job for a parcel; `layouts` are kept for later.

    Meanwhile garbage is not collected: a recipe of thousands of genes would have all objects of this process looked
    through several times, which took 7 of its 8 ms.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        task, given = pickle.loads(request)
        return task, tuple(unpack(each, layouts) if isinstance(each, Parcel) else each for each in given)
    finally:
        if was:
            gc.enable()


def packed(kind: Kind, content: object) -> bytes:
    """An answer for the driver."""
    try:
        answer = pickle.dumps((kind, content))
        pickle.loads(answer)  # some exceptions can be packed but not unpacked
    except Exception:
        answer = pickle.dumps(("raised", RuntimeError(f"{type(content).__name__}: {content}")))
    return answer
