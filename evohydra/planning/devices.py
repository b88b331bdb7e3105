"""What devices can do, from their makers' data sheets, and what this processor can do, measured in a moment."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

GB = 10**9
COMPUTE, TRANSFER = 0.35, 0.5  # shares of a data sheet's figures that transformers' models reach
OF_MEASURED = 0.5  # share of what a product of two matrices and a copy reach here: layers are smaller, and more is done


@dataclass(frozen=True)
class Device:
    """memory: bytes. flops: floating-point operations a second, dense, 16 bits. bandwidth: bytes a second.

    overhead: seconds that each layer of a model costs in each forward pass, however small it is. at_once: how many
    workers such a machine carries at once; None: each worker has such a device of its own. compute, transfer: shares of
    flops and bandwidth that transformers' models reach; less of a data sheet's than of what was measured.
    """

    name: str
    memory: int
    flops: float
    bandwidth: float
    overhead: float
    gpu: bool = True
    at_once: int | None = None
    compute: float = COMPUTE
    transfer: float = TRANSFER


@dataclass(frozen=True)
class Figures:
    """Of a GPU, as a user gives them: GB of memory, teraflops (dense, 16 bits), GB a second; None: the table's."""

    gigabytes: float | None = None
    teraflops: float | None = None
    bandwidth: float | None = None


def _gpu(name: str, gigabytes: float, teraflops: float, bandwidth: float) -> Device:
    """transformers' layers take some 15 kernels of 20 to 50 microseconds each to be started."""
    return Device(name, int(gigabytes * GB), teraflops * 1e12, bandwidth * GB, 0.0006)


# Dense bfloat16 or float16 with float32 sums.
DEVICES: Mapping[str, Device] = {
    each.name: each
    for each in (
        _gpu("l4", 24, 121, 300),
        _gpu("a10g", 24, 70, 600),
        _gpu("rtx3090", 24, 71, 936),
        _gpu("rtx4090", 24, 165, 1008),
        _gpu("l40s", 48, 362, 864),
        _gpu("a100-40", 40, 312, 1555),
        _gpu("a100", 80, 312, 2039),
        _gpu("h100", 80, 989, 3350),
        _gpu("h200", 141, 989, 4800),
        _gpu("b200", 180, 2250, 8000),
    )
}


def of_name(name: str) -> Device | None:
    """The device that a driver calls by this name ("NVIDIA H100 80GB HBM3"); None where it is not in the table."""
    words = name.lower().replace(" ", "").replace("-", "")
    found = [each for key, each in DEVICES.items() if key.replace("-", "") in words]
    return max(found, key=lambda each: len(each.name), default=None)


def this_processor(memory: int, cores: int) -> Device:
    """The CPU of this machine: the product of two matrices and the copy of a large one, some 20 ms in all."""
    import torch  # not for those who look a GPU up

    with torch.inference_mode():
        one = torch.ones(512, 512)
        one @ one
        took = min(_seconds(lambda: one @ one) for _ in range(5))
        large = torch.ones(4 * 2**20)
        copied = min(_seconds(lambda: large.clone()) for _ in range(3))
    return Device(
        f"cpu, {cores} cores",
        memory,
        flops=2 * 512**3 / took,
        bandwidth=2 * 4 * large.numel() / copied,
        overhead=0.0004,
        gpu=False,
        at_once=cores,
        compute=OF_MEASURED,
        transfer=OF_MEASURED,
    )


def _seconds(call: Callable[[], object]) -> float:
    began = time.thread_time()  # not the wall's: other work on the machine may be over soon
    call()
    return time.thread_time() - began


def chosen(name: str, figures: Figures) -> Device:
    """The GPU of this name, with a user's own figures in the place of the table's, or of one that is not in it.

    ValueError, with the GPUs that are known, for another name without all figures.
    """
    given = (figures.gigabytes, figures.teraflops, figures.bandwidth)
    known = DEVICES.get(name)
    if known is None and None in given:
        raise ValueError(
            f"gpu: expected one of {', '.join(DEVICES)}, got {name!r}; of another one give all of gpu_gb (memory), "
            "gpu_tflops (dense, 16 bits) and gpu_bandwidth (GB a second), from its data sheet"
        )
    usual = (known.memory / GB, known.flops / 1e12, known.bandwidth / GB) if known else (0.0, 0.0, 0.0)
    return _gpu(name, *(mine if mine is not None else table for mine, table in zip(given, usual, strict=True)))
