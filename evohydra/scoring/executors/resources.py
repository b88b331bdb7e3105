"""How many workers a machine holds, and what each of them gets: a GPU, or CPU threads."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from evohydra.checks import CountOrAuto

SHARE = 0.8  # of the memory that is free, for workers
IMPORTS = 1_000_000_000  # bytes of a process that has imported what it needs


@dataclass(frozen=True)
class Places:
    """Room for `workers` on this machine; each has `threads` CPU threads, and one of `gpus` where there are some."""

    workers: int
    threads: int
    gpus: int

    def environment(self, number: int) -> Mapping[str, str]:
        """The environment variables of worker `number`, from 0."""
        if not self.gpus:
            return {}
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = seen.split(",") if seen else [str(each) for each in range(self.gpus)]
        return {"CUDA_VISIBLE_DEVICES": names[number % len(names)]}


def places(workers: CountOrAuto, threads: CountOrAuto, worker_bytes: int) -> Places:
    """The places for so many workers, or as many as fit ("auto"), of which each needs `worker_bytes`."""
    gpus, cores = torch.cuda.device_count(), len(os.sched_getaffinity(0))
    if workers == "auto":
        fitting = int(SHARE * _free_memory() // (IMPORTS + worker_bytes))
        each = threads if isinstance(threads, int) else 1
        workers = gpus or max(1, min(cores // each, fitting))
    count = int(workers)
    return Places(count, max(1, cores // count) if threads == "auto" else int(threads), gpus)


def _free_memory() -> int:
    """Bytes that can be had without swapping."""
    try:
        with open("/proc/meminfo") as file:
            known = dict(line.split(":", 1) for line in file)
        return int(known["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
