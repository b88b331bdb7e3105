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
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from evohydra.checkpoints import CheckpointReader
from evohydra.merge import Engine
from evohydra.recipe import Checkpoint, Group, Merge

HIDDEN, INNER, LAYERS, VOCABULARY = 768, 2048, 12, 16000  # 110 million parameters
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


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of a small Llama."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        for part in "qkvo":
            found[f"model.layers.{layer}.self_attn.{part}_proj.weight"] = (HIDDEN, HIDDEN)
        for part, shape in (("gate", (INNER, HIDDEN)), ("up", (INNER, HIDDEN)), ("down", (HIDDEN, INNER))):
            found[f"model.layers.{layer}.mlp.{part}_proj.weight"] = shape
        for part in ("input", "post_attention"):
            found[f"model.layers.{layer}.{part}_layernorm.weight"] = (HIDDEN,)
    return found | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def make(root: Path, sources: int, dtype: torch.dtype) -> list[Path]:
    """A base and sources that are small steps away from it."""
    generator = torch.Generator().manual_seed(0)
    base = {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in shapes().items()}
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

    def __init__(self, python: str, threads: int, files: list[str]) -> None:
        arguments = [python, str(WORKER), str(threads), *files]
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


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def rows(arguments: argparse.Namespace, dtype: str, threads: int, sources: int) -> Iterator[tuple[Any, ...]]:
    """For each method: seconds, of mergekit, ratio, share of memcpy's bytes per second."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as temporary:
        paths = make(Path(temporary), sources, DTYPES[dtype])
        files = [str(path / "model.safetensors") for path in paths]
        peer = Peer(arguments.mergekit_python, threads, files) if arguments.mergekit_python else None
        readers = {str(index): CheckpointReader(path) for index, path in enumerate(paths)}
        live = {name: torch.zeros(shape, dtype=DTYPES[dtype]) for name, shape in shapes().items()}
        size = sum(tensor.nbytes for tensor in live.values())
        for method in arguments.methods:
            function, each, whole = METHODS[method]
            if method == "slerp" and sources != 2:
                continue
            engine = Engine(
                readers, device=torch.device("cpu"), dtype=DTYPES[dtype], compile_kernels=True, cache_bytes=8 * 1024**3
            )
            models = tuple(Checkpoint(str(index + 1), "-") for index in range(sources))

            def recipe(turn: int, function: str = function, each: Any = each, whole: Any = whole) -> Merge:
                # Another genome each time: nothing that depends on it may be kept.
                genes = {k: tuple(v * (1 - 0.01 * turn - 0.1 * i) if k != "epsilon" else v for i in range(sources))
                         for k, v in each.items()}  # fmt: skip
                group = Group("all", tuple(live), genes)
                return Merge(
                    f"evohydra.methods.{function}", Checkpoint("0", "-"), models, (group,), {"mask_seed": 1, **whole}
                )

            first = timed(lambda: engine.merge_into(recipe(0), live))
            engine.merge_into(recipe(1), live)
            base = None if method in WITHOUT_BASE - {"slerp"} else files[0]
            chosen = files[1:] if base is None else files[: 2 if method == "slerp" else None]
            parameters = whole | {k: [v - 0.1 * v * i for i in range(sources)] if k != "epsilon" else v
                                  for k, v in each.items()}  # fmt: skip
            job = {"method": method, "models": chosen, "base": base, "parameters": parameters}
            ours, theirs, copies = [], [], []
            other = {name: torch.zeros_like(tensor) for name, tensor in live.items()}
            for turn in range(arguments.runs):
                ours.append(min(timed(lambda: engine.merge_into(recipe(turn + 2), live)) for _ in range(2)))
                copies.append(min(timed(lambda: [live[name].copy_(other[name]) for name in live]) for _ in range(2)))
                theirs.append(peer.seconds(job) if peer else float("nan"))
            streams = sources + 1 + (method not in WITHOUT_BASE)  # models and base read, the live model written
            speed = statistics.median(streams * copy / (2 * our) for our, copy in zip(ours, copies, strict=True))
            ratio = statistics.median(their / our for our, their in zip(ours, theirs, strict=True))
            moved = streams * size / statistics.median(ours) / 1e9
            yield method, first, statistics.median(ours), statistics.median(theirs), ratio, moved, speed
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
    arguments = parser.parse_args()
    count = sum(torch.Size(shape).numel() for shape in shapes().values())
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
