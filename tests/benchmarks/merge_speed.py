"""One candidate's merge into the live model: evohydra beside mergekit and memcpy, in turn, in the same run.

    python -m tests.benchmarks.merge_speed --mergekit-python /venv/bin/python [--threads 1 2] [--sources 2 3]

mergekit wants an environment of its own: `pip install torch==2.13.0 mergekit==0.1.5`. Without --mergekit-python only
memcpy is beside evohydra. Prints a table in Markdown: seconds are medians, ratios medians of paired runs.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from evohydra.merging.checkpoints import CheckpointReader
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Group, Merge

WORKER = Path(__file__).with_name("mergekit_worker.py")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
# mergekit's name: our function, parameters for each source, parameters of the merge, those of mergekit.
METHODS: dict[str, tuple[str, dict[str, float], dict[str, Any]]] = {
    "linear": ("linear:linear", {"weight": 0.5}, {"normalize": True}),
    "task_arithmetic": ("task_arithmetic:task_arithmetic", {"weight": 0.5}, {"normalize": False}),
    "slerp": ("slerp:slerp", {}, {"t": 0.4}),
    "ties": ("ties:ties", {"weight": 0.5, "density": 0.5}, {"normalize": True}),
    "dare_linear": ("dare:dare_linear", {"weight": 0.5, "density": 0.5}, {}),
    "dare_ties": ("dare:dare_ties", {"weight": 0.5, "density": 0.5}, {}),
    "della": ("della:della", {"weight": 0.5, "density": 0.5, "epsilon": 0.15}, {}),
    "breadcrumbs": ("breadcrumbs:breadcrumbs", {"weight": 0.5, "density": 0.8, "gamma": 0.01}, {}),
    "sce": ("sce:sce", {}, {"select_topk": 0.5}),
}
WITHOUT_BASE = {"linear", "slerp"}


@dataclass(frozen=True)
class Shape:
    """Of a small Llama; the default has 110 million parameters."""

    hidden: int = 768
    inner: int = 2048
    layers: int = 12
    vocabulary: int = 16000

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Its tensors."""
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, self.hidden)}
        for layer in range(self.layers):
            for part in "qkvo":
                found[f"model.layers.{layer}.self_attn.{part}_proj.weight"] = (self.hidden, self.hidden)
            for part in ("gate", "up"):
                found[f"model.layers.{layer}.mlp.{part}_proj.weight"] = (self.inner, self.hidden)
            found[f"model.layers.{layer}.mlp.down_proj.weight"] = (self.hidden, self.inner)
            for part in ("input", "post_attention"):
                found[f"model.layers.{layer}.{part}_layernorm.weight"] = (self.hidden,)
        edges = {"model.norm.weight": (self.hidden,), "lm_head.weight": (self.vocabulary, self.hidden)}
        return found | edges


def make(root: Path, shape: Shape, sources: int, dtype: torch.dtype) -> list[Path]:
    """A base and sources that are small steps away from it."""
    generator = torch.Generator().manual_seed(0)
    base = {name: 0.02 * torch.randn(size, generator=generator) for name, size in shape.tensors().items()}
    paths = []
    for index in range(sources + 1):
        step = 0.002 * (index > 0)
        tensors = {n: (t + step * torch.randn(t.shape, generator=generator)).to(dtype) for n, t in base.items()}
        paths.append(root / str(index))
        paths[-1].mkdir()
        save_file(tensors, paths[-1] / "model.safetensors")
    return paths


class Peer:
    """mergekit in a process of its own, timing what it is told."""

    def __init__(self, python: str, threads: int, clock: str, files: list[str]) -> None:
        arguments = [python, str(WORKER), str(threads), clock, *files]
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("mergekit's process has ended; see its error above")
        return line

    def seconds(self, job: dict[str, Any]) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return float(self._read())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def timed(function: Callable[[], object], clock: str) -> float:
    now: Callable[[], float] = getattr(time, clock)
    start = now()
    function()
    return now() - start


def recipe(method: str, turn: int, sources: int, names: tuple[str, ...]) -> Merge:
    """Another genome each turn: nothing that depends on it may be kept."""
    function, each, whole = METHODS[method]
    genes = {key: tuple(_value(key, value, source, turn) for source in range(sources)) for key, value in each.items()}
    models = tuple(Checkpoint(str(index + 1), "-") for index in range(sources))
    group = Group("all", names, genes)
    return Merge(
        f"evohydra.merging.methods.{function}", Checkpoint("0", "-"), models, (group,), {"mask_seed": 1, **whole}
    )


def _value(key: str, value: float, source: int, turn: int) -> float:
    return value if key == "epsilon" else value * (1 - 0.01 * turn - 0.1 * source)


def job(method: str, files: list[str], sources: int) -> dict[str, Any]:
    """The same for mergekit."""
    _, each, whole = METHODS[method]
    base = None if method == "linear" else files[0] if method != "slerp" else files[1]
    models = files[1:] if method in WITHOUT_BASE else files
    parameters = whole | {
        key: [_value(key, value, source, 0) for source in range(sources)] for key, value in each.items()
    }
    return {"method": method, "models": models, "base": base, "parameters": parameters}


LONG = 3.0  # seconds


@dataclass(frozen=True)
class Bench:
    """What is measured on: the same models for both, and a process of mergekit's."""

    names: tuple[str, ...]
    files: list[str]
    readers: dict[str, CheckpointReader]
    live: dict[str, torch.Tensor]
    peer: Peer | None
    runs: int
    clock: str

    def _theirs(self, method: str, sources: int) -> float:
        if self.peer is None:
            return float("nan")
        seconds = self.peer.seconds(job(method, self.files, sources))
        return seconds if seconds > LONG else self.peer.seconds(job(method, self.files, sources))

    def row(self, method: str) -> tuple[float, ...]:
        """Seconds of the first merge, of another, mergekit's; ratio to these, GB/s, share of memcpy's GB/s."""
        sources = len(self.files) - 1
        dtype = next(iter(self.live.values())).dtype
        engine = Engine(
            self.readers, device=torch.device("cpu"), dtype=dtype, compile_kernels=True, cache_bytes=8 * 1024**3
        )
        copy = {name: torch.zeros_like(tensor) for name, tensor in self.live.items()}

        def merge(turn: int) -> float:
            return timed(lambda: engine.merge_into(recipe(method, turn, sources, self.names), self.live), self.clock)

        def memcpy() -> float:
            return timed(lambda: [copy[name].copy_(tensor) for name, tensor in self.live.items()], self.clock)

        first = merge(0)
        merge(1)
        memcpy()
        ours, theirs, copies = [], [], []
        for turn in range(self.runs):
            # Warm: each straight after another of its own. What runs in between leaves caches cold, which costs up to
            # 0.05 s; mergekit is asked twice, too, unless it takes so long that this is nothing.
            merge(2 * turn + 2)
            ours.append(merge(2 * turn + 3))
            memcpy()
            copies.append(memcpy())
            theirs.append(self._theirs(method, sources))
        streams = sources + 1 + (method not in WITHOUT_BASE)  # models and base read, the live model written
        size = sum(tensor.nbytes for tensor in self.live.values())
        share = statistics.median(streams * one / (2 * our) for our, one in zip(ours, copies, strict=True))
        ratio = statistics.median(their / our for our, their in zip(ours, theirs, strict=True))
        our = statistics.median(ours)
        return first, our, statistics.median(theirs), ratio, streams * size / our / 1e9, share


def rows(arguments: argparse.Namespace, dtype: str, threads: int, sources: int) -> Iterator[tuple[Any, ...]]:
    """Each method and what was measured."""
    torch.set_num_threads(threads)
    shape = Shape(arguments.hidden, arguments.inner, arguments.layers, arguments.vocabulary)
    with tempfile.TemporaryDirectory() as temporary:
        paths = make(Path(temporary), shape, sources, DTYPES[dtype])
        files = [str(path / "model.safetensors") for path in paths]
        peer = Peer(arguments.mergekit_python, threads, arguments.clock, files) if arguments.mergekit_python else None
        readers = {str(index): CheckpointReader(path) for index, path in enumerate(paths)}
        live = {name: torch.zeros(size, dtype=DTYPES[dtype]) for name, size in shape.tensors().items()}
        bench = Bench(tuple(live), files, readers, live, peer, arguments.runs, arguments.clock)
        for method in arguments.methods:
            if method != "slerp" or sources == 2:
                yield method, *bench.row(method)
        if peer:
            peer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit-python", help="a Python with mergekit")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sources", type=int, nargs="+", default=[2])
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--runs", type=int, default=3, help="paired runs")
    clocks = ("perf_counter", "process_time")
    parser.add_argument("--clock", choices=clocks, default=clocks[0], help="process_time on a shared machine, 1 thread")
    for name, value in asdict(Shape()).items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"of the models (default {value})")
    arguments = parser.parse_args()
    shape = Shape(arguments.hidden, arguments.inner, arguments.layers, arguments.vocabulary)
    count = sum(torch.Size(size).numel() for size in shape.tensors().values())
    print(f"{count / 1e6:.0f} million parameters, torch {torch.__version__}\n")
    print("| dtype | threads | sources | method | first s | s | mergekit s | times faster | GB/s | of memcpy |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for dtype in arguments.dtypes:
        for threads in arguments.threads:
            for sources in arguments.sources:
                for method, first, our, their, ratio, moved, speed in rows(arguments, dtype, threads, sources):
                    print(
                        f"| {dtype} | {threads} | {sources} | {method} | {first:.1f} | {our:.3f} | {their:.2f} | "
                        f"{ratio:.0f} | {moved:.1f} | {speed:.2f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
