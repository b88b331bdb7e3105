"""How this process, a run's or a worker's, uses threads and memory."""

import ctypes
import os
import sys
from typing import Literal

import torch
from threadpoolctl import threadpool_limits

from evohydra.scoring.executors.resources import usable_cores

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # glibc's names for them: M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h
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
