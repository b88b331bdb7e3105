"""What crosses between host and device while a model is merged, as torch's profiler sees it; its speed and memory."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from evohydra.merging.checkpoints import CheckpointReader
from evohydra.merging.engine import Engine
from tests.benchmarks.merge_speed import Shape, make, recipe
from tests.gpu.findings import Finding

SHAPES = {"tiny": Shape(64, 160, 2, 1000), "110M": Shape()}
METHODS = ("linear", "task_arithmetic", "ties", "dare_ties")
SMALL = 0.01  # of a model's bytes: flags, norms and thresholds that a merge needs on the other side
RUNS = 5


@dataclass(frozen=True)
class Crossed:
    """Bytes from host to device, and back; unpinned: those of the first that did not lie in pinned memory."""

    there: int
    back: int
    unpinned: int


def crossed(trace: Mapping[str, Any]) -> Crossed:
    """What a trace of the profiler (Chrome's format) says."""
    events = [each for each in trace["traceEvents"] if str(each.get("name", "")).startswith("Memcpy ")]

    def total(direction: str, *but: str) -> int:
        names = [(str(each["name"]), each) for each in events]
        return sum(
            int(each.get("args", {}).get("bytes", 0))
            for name, each in names
            if direction in name and not any(word in name for word in but)
        )

    return Crossed(total("HtoD"), total("DtoH"), total("HtoD", "Pinned ->"))


def watched(what: Callable[[], None], device: torch.device) -> Crossed:
    """What crosses while something is done."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        what()
        synchronized(device)
    with tempfile.TemporaryDirectory() as root:
        profiler.export_chrome_trace(str(Path(root) / "trace.json"))
        return crossed(json.loads((Path(root) / "trace.json").read_text()))


def synchronized(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def checks(device: torch.device, shape: str, dtype: torch.dtype = torch.bfloat16) -> Iterator[Finding]:
    """For each method: the first merge brings each source once, through pinned memory; a later one brings nothing."""
    with tempfile.TemporaryDirectory() as root:
        paths = make(Path(root), SHAPES[shape], 2, dtype)
        readers = {str(index): CheckpointReader(path) for index, path in enumerate(paths)}
        names = tuple(SHAPES[shape].tensors())
        for method in METHODS:
            yield from of_method(method, readers, names, device, dtype, shape)


def of_method(
    method: str,
    readers: Mapping[str, CheckpointReader],
    names: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
    shape: str,
) -> Iterator[Finding]:
    """The findings of one method."""
    sizes = {name: readers["0"].shapes[name] for name in names}
    live = {name: torch.zeros(size, dtype=dtype, device=device) for name, size in sizes.items()}
    model = sum(tensor.nbytes for tensor in live.values())
    engine = Engine(readers, device=device, dtype=dtype, cache_bytes=64 * 2**30)
    used = {checkpoint for node in [recipe(method, 0, 2, tuple(names))] for checkpoint in node_names(node)}

    def merge(turn: int) -> None:
        engine.merge_into(recipe(method, turn, 2, tuple(names)), live)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    first = watched(lambda: merge(0), device)
    later = watched(lambda: merge(1), device)
    seconds = []
    for turn in range(2, 2 + RUNS):
        began = time.perf_counter()
        merge(turn)
        synchronized(device)
        seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    title = f"`{method}`, {shape} in {str(dtype).removeprefix('torch.')}"
    sources = len(used) * model if device.type == "cuda" else 0
    yield Finding(
        "copies", f"{title}: first merge", f"each of {len(used)} sources once, pinned ({sources / 1e6:.1f} MB)",
        f"{first.there / 1e6:.1f} MB there ({first.unpinned / 1e6:.1f} not pinned), {first.back / 1e6:.1f} MB back",
        abs(first.there - sources) <= SMALL * model and max(first.unpinned, first.back) <= SMALL * model,
        {"there": first.there, "back": first.back, "unpinned": first.unpinned, "sources": sources},
    )  # fmt: skip
    yield Finding(
        "copies", f"{title}: a later merge", f"under {SMALL:.0%} of the model ({model / 1e6:.1f} MB) either way",
        f"{later.there / 1e6:.2f} MB there, {later.back / 1e6:.2f} MB back",
        max(later.there, later.back) <= SMALL * model, {"there": later.there, "back": later.back, "model": model},
    )  # fmt: skip
    yield Finding(
        "speed", f"{title}: a later merge", "-", f"{1000 * median(seconds):.2f} ms, {peak / 1e6:.0f} MB of the device "
        "at most", None, {"seconds": median(seconds), "peak_bytes": peak, "model_bytes": model},
    )  # fmt: skip


def node_names(node: Any) -> set[str]:
    """The checkpoints of a merge."""
    return {each.name for each in (*node.models, *((node.base,) if node.base else ()))}
