"""Merging from disk to disk: the memory it takes beside the size of shards and tensors, and its speed beside cp's.

    python -m tests.benchmarks.merge_memory [--directory DIR] [--small] [--layers N] [--methods ties dare_ties]
        [--shard-gb 5] [--yaml]

Writes a random base and two sources of it in the shape of a Mistral with 3 billion parameters (18 GB in bfloat16, and 6
for the merge; --small: 0.9 GB) to a temporary directory in DIR, and removes it whatever happens. Each method of
conf/merge then merges them at its defaults by `python -m evohydra.rebuild`, with --yaml also from its mergekit file, in
a process of its own that is watched every 20 ms: RssAnon is the memory it has made (mapped files are the page cache's),
VmHWM includes what is mapped. `imports` is what it has made before it starts. The bound for what comes on top is the
largest shard + 4 x the largest tensor. `cp` reads the sources and writes as many bytes as the merge, in the same run;
the merge reads its sources twice, once to fingerprint them, and reads back what it wrote. Tables are in Markdown.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import MistralConfig

from evohydra.mergekit import writer as mergekit
from evohydra.merging.checkpoints import CheckpointReader
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint
from evohydra.winner.checkpoint_files import write_weights
from tests.benchmarks.proc import status
from tests.benchmarks.recipes import as_file, default_merge
from tests.tiny_models import tokenizer

REPOSITORY = Path(__file__).resolve().parent.parent.parent
VOCABULARY = 32000
INTERVAL = 0.02  # seconds
CHUNK = 2**24  # bytes that cp reads at once
BASE_BLOCK, STEP_BLOCK = 2**22 - 3, 2**22 - 17  # random numbers that are repeated; prime to each other
BASE_SCALE, STEP_SCALE = 0.02, 0.001
STAGES = ("fingerprinting", "merging", "reading back")
SIZES = {
    "7B": (6.74e9, 32000 * 4096),
    "70B": (68.98e9, 32000 * 8192),
}  # Llama 2: parameters, those of the largest tensor


@dataclass(frozen=True)
class Shape:
    """The sizes of a Mistral; by default with 3 billion parameters."""

    hidden: int = 3072
    inner: int = 8192
    layers: int = 28
    heads: int = 24
    kv_heads: int = 8
    vocabulary: int = VOCABULARY

    def config(self) -> MistralConfig:
        return MistralConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.hidden // self.heads,
            tie_word_embeddings=False,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
            architectures=["MistralForCausalLM"],
            dtype="bfloat16",
        )

    def tensors(self) -> dict[str, tuple[int, ...]]:
        narrow = self.hidden // self.heads * self.kv_heads
        attention = {"q": (self.hidden, self.hidden), "k": (narrow, self.hidden), "v": (narrow, self.hidden)}
        mlp = {"gate": (self.inner, self.hidden), "up": (self.inner, self.hidden), "down": (self.hidden, self.inner)}
        found: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocabulary, self.hidden),
            "lm_head.weight": (self.vocabulary, self.hidden),
            "model.norm.weight": (self.hidden,),
        }
        for layer in range(self.layers):
            at = f"model.layers.{layer}"
            found |= {f"{at}.self_attn.{part}_proj.weight": shape for part, shape in attention.items()}
            found[f"{at}.self_attn.o_proj.weight"] = (self.hidden, self.hidden)
            found |= {f"{at}.mlp.{part}_proj.weight": shape for part, shape in mlp.items()}
            found |= {f"{at}.{part}_layernorm.weight": (self.hidden,) for part in ("input", "post_attention")}
        return dict(sorted(found.items()))


SMALL = Shape(hidden=1024, inner=2816, layers=8, heads=16, kv_heads=4)  # 156 million parameters


class Synthetic:
    """Random tensors made as they are read: model 0 is the base, the others small steps away from it.

    Numbers are repeated blocks of normal ones, each tensor's begun elsewhere: nine billion are made in a minute.
    """

    def __init__(self, shape: Shape, model: int) -> None:
        self.shapes = shape.tensors()
        self._model = model
        self._places = {name: index for index, name in enumerate(self.shapes)}
        generator = torch.Generator().manual_seed(0)
        self._base = BASE_SCALE * torch.randn(BASE_BLOCK, generator=generator)
        self._step = STEP_SCALE * torch.randn(STEP_BLOCK, generator=generator)

    def read(self, name: str) -> Tensor:
        """The tensor `name`, bfloat16."""
        place = self._places[name]
        result = torch.empty(self.shapes[name], dtype=torch.bfloat16)
        flat = result.view(-1)
        base = self._base.roll(place * 7919)
        step = self._step.roll(place * 104729 + self._model * 1299709)
        for start in range(0, len(flat), STEP_BLOCK):
            part = flat[start : start + STEP_BLOCK]
            # The base's block is longer by a few numbers: it is read from another place each time.
            numbers = base.roll(-start)[: len(part)]
            part.copy_(numbers + step[: len(part)] if self._model else numbers)
        return result


def make(root: Path, shape: Shape, shard_bytes: int) -> list[Path]:
    """Base and two sources as checkpoint directories."""
    paths = [root / name for name in ("base", "one", "two")]
    for model, path in enumerate(paths):
        path.mkdir()
        engine = Engine({"it": Synthetic(shape, model)}, device=torch.device("cpu"), cache_bytes=0)
        write_weights(Checkpoint("it", str(path)), engine, path, torch.bfloat16, shard_bytes)
        shape.config().save_pretrained(path)
        tokenizer().save_pretrained(path)
    return paths


@dataclass(frozen=True)
class Watched:
    """A merge: bytes it had made before, and at most in each stage; the most ever resident; seconds of each stage."""

    imports: int
    peaks: dict[str, int]
    resident: int
    seconds: dict[str, float]

    @property
    def above(self) -> int:
        """The most that came on top of the imports."""
        return max(self.peaks.values()) - self.imports


class Begun(Protocol):
    """What `watch` needs of a process, as Popen has it."""

    pid: int

    def poll(self) -> int | None: ...


Begin = Callable[[str, list[str], Path], Begun]


def begin(module: str, arguments: list[str], output: Path) -> Begun:
    """`python -m MODULE ARGUMENTS` from nothing; its output goes to a file."""
    with output.open("w") as log:
        return subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=REPOSITORY, stdout=log, stderr=log)


def watch(recipe: Path, target: Path, begin: Begin = begin) -> Watched:
    """Run the merge of a recipe file in a process of its own; RuntimeError with what it said where it fails."""
    notes, said = recipe.with_suffix(".notes"), recipe.with_suffix(".log")
    process = begin("tests.benchmarks.rebuild_worker", [str(notes), str(recipe), str(target)], said)
    samples = []
    resident = 0
    while (ended := process.poll()) is None:
        now = status(process.pid)
        if "RssAnon" in now:
            samples.append((time.time(), now["RssAnon"]))
            resident = max(resident, now["VmHWM"])
        time.sleep(INTERVAL)
    if ended:
        raise RuntimeError(said.read_text())
    noted = [json.loads(line) for line in notes.read_text().splitlines()]
    begun = {each["stage"]: each for each in noted}
    ends = dict(zip(STAGES, (*STAGES[1:], "done"), strict=True))
    spans = {stage: (begun[stage]["time"], begun[end]["time"]) for stage, end in ends.items()}
    peaks = {
        stage: max([size for at, size in samples if start <= at <= stop], default=begun[stage]["anonymous"])
        for stage, (start, stop) in spans.items()
    }
    seconds = {stage: stop - start for stage, (start, stop) in spans.items()}
    return Watched(begun[STAGES[0]]["anonymous"], peaks, resident, seconds)


def weights(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.safetensors"))


def size_of(directory: Path) -> int:
    return sum(file.stat().st_size for file in weights(directory))


def cp(sources: Sequence[Path], target: Path) -> float:
    """Seconds to read all of the sources and write the first of them again."""
    target.mkdir()
    start = time.perf_counter()
    for index, directory in enumerate(sources):
        for file in weights(directory):
            with (
                file.open("rb", buffering=0) as read,
                (target / file.name if not index else Path("/dev/null")).open("wb", buffering=0) as written,
            ):
                while chunk := read.read(CHUNK):
                    written.write(chunk)
    return time.perf_counter() - start


def bound(directory: Path) -> tuple[int, int]:
    """Bytes of the largest shard and of the largest tensor of a checkpoint."""
    shard = max(file.stat().st_size for file in weights(directory))
    return shard, max(2 * torch.Size(shape).numel() for shape in CheckpointReader(directory).shapes.values())


def measure(
    method: str, paths: Sequence[Path], root: Path, shard_bytes: int, *, yaml: bool = False, begin: Begin = begin
) -> Watched:
    """Merge by `method`, from its recipe or its mergekit file, and remove the merge again.

    Raises NotExpressible where mergekit has no such method.
    """
    base, *models = paths
    try:
        merge = default_merge(method, base, models)
    except ValueError:
        merge = default_merge(method, base, models[:1])
    with tempfile.TemporaryDirectory(dir=root) as own:
        if yaml:
            recipe = Path(own, "recipe.yaml")
            recipe.write_text(mergekit.to_yaml(merge, "bfloat16"))
        else:
            recipe = Path(own, "recipe.json")
            recipe.write_text(json.dumps(as_file(merge, shard_bytes)))
        return watch(recipe, Path(own, "merge"), begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, help="where there is room; default: the system's for temporary files")
    parser.add_argument("--small", action="store_true", help="156 million parameters in shards of 0.1 GB")
    parser.add_argument("--layers", type=int, help="another number of layers")
    parser.add_argument("--methods", nargs="+", default=["ties", "dare_ties"], help="of conf/merge")
    parser.add_argument("--shard-gb", type=float, help="default: 5, with --small 0.1")
    parser.add_argument("--yaml", action="store_true", help="also from mergekit files (their shards: 5 GB)")
    arguments = parser.parse_args()
    shape = SMALL if arguments.small else Shape()
    shape = Shape(**{**shape.__dict__, "layers": arguments.layers or shape.layers})
    shard_bytes = int(1e9 * (arguments.shard_gb or (0.1 if arguments.small else 5)))
    with tempfile.TemporaryDirectory(dir=arguments.directory) as temporary:
        root = Path(temporary)
        start = time.perf_counter()
        paths = make(root, shape, shard_bytes)
        made = time.perf_counter() - start
        shard, tensor = bound(paths[0])
        count = sum(torch.Size(each).numel() for each in shape.tensors().values())
        moved = sum(map(size_of, paths)) + size_of(paths[0])
        print(f"{count / 1e9:.2f} billion parameters, base and two sources, bfloat16, made in {made:.0f} s")
        print(f"largest shard {shard / 1e6:.0f} MB, largest tensor {tensor / 1e6:.0f} MB", end=", ")
        print(f"bound {(shard + 4 * tensor) / 1e6:.0f} MB above the imports; {moved / 1e9:.2f} GB to read and write\n")
        print(
            "| method | from | imports MB | peak MB in " + " | in ".join(STAGES) + " | above imports | of the bound ",
            end="",
        )
        print("| x largest tensor | VmHWM MB | s " + " | s ".join(STAGES) + " | GB/s | cp GB/s |")
        print("|" + "---|" * 15)
        estimates = []
        for method in arguments.methods:
            for yaml in (False, True) if arguments.yaml else (False,):
                try:
                    watched = measure(method, paths, root, shard_bytes, yaml=yaml)
                except mergekit.NotExpressible:
                    continue
                with tempfile.TemporaryDirectory(dir=root) as own:
                    copied = cp(paths, Path(own, "copy"))
                total = sum(watched.seconds.values())
                peaks = " | ".join(f"{watched.peaks[stage] / 1e6:.0f}" for stage in STAGES)
                seconds = " | ".join(f"{watched.seconds[stage]:.1f}" for stage in STAGES)
                print(
                    f"| {method} | {'yaml' if yaml else 'recipe'} | {watched.imports / 1e6:.0f} | {peaks} | "
                    f"{watched.above / 1e6:.0f} | {watched.above / (shard + 4 * tensor):.2f} | "
                    f"{watched.above / tensor:.1f} | {watched.resident / 1e6:.0f} | {seconds} | "
                    f"{moved / total / 1e9:.2f} | {moved / copied / 1e9:.2f} |",
                    flush=True,
                )
                if not yaml:
                    estimates.append((method, watched, moved / total))
        print("\nEstimates for a base and two sources of other sizes: memory = imports + (above imports here / largest")
        print("tensor here) x largest tensor there; seconds = 8 bytes x parameters there / (bytes per second here).\n")
        print("| method | size | largest tensor MB | memory GB | minutes |\n|---|---|---|---|---|")
        for method, watched, speed in estimates:
            for name, (parameters, largest) in SIZES.items():
                memory = watched.imports + watched.above / tensor * 2 * largest
                minutes = 8 * parameters / speed / 60
                print(f"| {method} | {name} | {2 * largest / 1e6:.0f} | {memory / 1e9:.1f} | {minutes:.0f} |")


if __name__ == "__main__":
    main()
