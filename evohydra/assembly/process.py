"""How this process, a run's or a worker's, uses threads and memory."""

import ctypes
import math
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from threadpoolctl import threadpool_limits

from evohydra.scoring.executors.resources import usable_cores

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # glibc's names for them: M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h
# Models with fewer parameters have one thread. Medians on two cores that others use too, of a batch of 64 prompts and
# six tokens of each answer, with one thread and with two:
#   0.7 million   0.36 s and 0.50 s   processor time 0.10 s and 0.18 s
#   3 million     0.46 s and 0.90 s                  0.25 s and 0.38 s
#   12 million    1.9 s  and 2.8 s                   0.69 s and 0.90 s
#   34 million    4.3 s  and 6.8 s                   1.6 s  and 2.1 s
# From some ten million on the second thread costs a third more, which cores that nobody else uses give back.
SMALL = 8_000_000
KEPT = {
    "MALLOC_MMAP_THRESHOLD_": (MMAP_THRESHOLD, 32 * 1024**2),
    "MALLOC_TRIM_THRESHOLD_": (TRIM_THRESHOLD, 512 * 1024**2),
}


def set_up_process(threads: int | Literal["auto"]) -> None:
    """Set the threads of this process on a CPU, and how freed memory is kept.

    "auto" leaves torch's own number, unless that is of all cores of a machine of which a container may use a few. The
    linear algebra of numpy and scipy, by which optimizers work, has one thread: with another number its last bits are
    others, and so is the search.
    """
    threadpool_limits(1, user_api="blas")
    _keep_freed_memory()
    if threads != "auto":
        torch.set_num_threads(threads)
    elif "OMP_NUM_THREADS" not in os.environ and usable_cores() < torch.get_num_threads():
        torch.set_num_threads(usable_cores())


def suit_threads(threads: int | Literal["auto"], shapes: Iterable[Sequence[int]]) -> None:
    """Of "auto" make one thread for a small model, of tensors of these `shapes`: more would cost and gain nothing.

    It goes by the model's size, and not by a measurement: outputs depend on the number of threads in their last bits,
    and the same command has to give the same ledger, whatever else the machine does. Where the environment says
    OMP_NUM_THREADS, that holds.
    """
    if threads == "auto" and "OMP_NUM_THREADS" not in os.environ and sum(map(math.prod, shapes)) < SMALL:
        torch.set_num_threads(1)


def device_of(name: Literal["auto", "cpu", "cuda"], *, elsewhere: bool = False) -> torch.device:
    """The device for merges and models; ValueError for cuda where there is none.

    elsewhere: it is other machines that have it, and what this process tries it tries on its CPU.
    """
    if elsewhere:
        return torch.device("cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but torch finds no CUDA device here; use device=auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _keep_freed_memory() -> None:
    """Let the C library keep up to 512 MB of freed memory, unless the environment has settings of its own.

    As it is, glibc gives tensors of a few megabytes back to the system and asks for them anew each time. On the
    embedded example that took a quarter of a genome's time. Without glibc nothing is changed.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "gnu_get_libc_version"):
        return
    for variable, (parameter, size) in KEPT.items():
        if variable not in os.environ:
            library.mallopt(parameter, size)
