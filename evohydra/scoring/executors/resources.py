"""How many workers a machine holds, and what each of them gets: a GPU, or CPU threads."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evohydra.checks import CountOrAuto

SHARE = 0.8  # of the memory that is free, for workers
LIMITS = Path("/sys/fs/cgroup")  # a container's, by cgroup v2
IMPORTS = 1_000_000_000  # bytes of a process that has imported what it needs
PER_GB = 4  # workers, of which the imports alone take more than all memory


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


def gpus_here() -> int:
    """How many GPUs this machine has."""
    import torch  # seconds, which a misspelt option need not wait for

    return torch.cuda.device_count()


def places(workers: CountOrAuto, threads: CountOrAuto, worker_bytes: int, gpus: int | None = None) -> Places:
    """The places for so many workers, or as many as fit ("auto"), of which each needs `worker_bytes`.

    gpus: those of this machine that workers may use; None: all. ValueError for a number that cannot be meant.
    """
    gpus, cores = gpus_here() if gpus is None else gpus, usable_cores()
    if workers == "auto":
        fitting = int(SHARE * _free_memory() // (IMPORTS + worker_bytes))
        each = threads if isinstance(threads, int) else 1
        workers = gpus or max(1, min(cores // each, fitting))
    count, most = int(workers), max(1, PER_GB * total_memory() // 1_000_000_000)
    if count > most:
        raise ValueError(
            f"executor.workers: expected auto or at most {most} on this machine, whose memory holds no more processes, "
            f"got {count}"
        )
    return Places(count, max(1, cores // count) if threads == "auto" else int(threads), gpus)


def usable_cores(limits: Path = LIMITS) -> int:
    """The cores that this process may use: its affinity, and within the share of a container's limit."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (limits / "cpu.max").read_text().split()
        return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def total_memory(limits: Path = LIMITS) -> int:
    """Bytes of memory of this machine, or of its container where that has a limit."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(whole, _number(limits / "memory.max") or whole)


def _free_memory(limits: Path = LIMITS) -> int:
    """Bytes that can be had without swapping, and without crossing a container's limit."""
    try:
        with open("/proc/meminfo") as file:
            known = dict(line.split(":", 1) for line in file)
        free = int(known["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    limit, used = _number(limits / "memory.max"), _number(limits / "memory.current")
    return min(free, limit - used) if limit is not None and used is not None else free


def _number(file: Path) -> int | None:
    """What a file of the kernel holds; None where there is none, or no limit in it ("max")."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
