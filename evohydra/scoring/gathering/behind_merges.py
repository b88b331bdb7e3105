"""Inputs of each source's layers behind the merged layers before them, layer after layer (RegMean++, 2508.03121)."""

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from evohydra.families import LiveModel
from evohydra.merging.engine import Engine
from evohydra.merging.statistics import Found
from evohydra.recipe import Checkpoint, Merge, Node
from evohydra.scoring.benchmarks.token_texts import TokenText
from evohydra.scoring.gathering.sums import Described, Sums, finite, input_sums
from evohydra.spaces.grouping import EMBEDDINGS, Location

SPOOL = ".gathering-"  # directories of sums, of one pass


@dataclass
class _InMemory:
    """Statistics of the layer that is merged next."""

    found: dict[tuple[str, str], Found] = field(default_factory=dict)

    def read(self, digest: str, source: str, name: str) -> Found | None:
        """As `Statistics.read`, whatever the digest."""
        return self.found.get((source, name))

    def told(self, node: Node) -> dict[str, dict[str, dict[str, str]]]:
        """Nothing: no recipe file is written of it."""
        return {}


@dataclass
class _Spooled:
    """The sums of one source on disk, in a file for each stage."""

    files: list[Path] = field(default_factory=list)
    described: dict[str, tuple[torch.dtype, tuple[int, ...]]] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    transposed: tuple[str, ...] = ()

    def add(self, sums: Sums, file: Path) -> dict[str, Found]:
        """Take in the sums of a stage; what they are of each tensor of checkpoints."""
        tensors = dict(sums.tensors)
        save_file(tensors, file)
        self.files.append(file)
        self.described |= _in_order(sums.described, tensors)
        self.same |= sums.same
        self.transposed += sums.transposed
        return {name: Found(tensors[stored], name in sums.transposed) for name, stored in sums.same.items()}

    def sums(self) -> Sums:
        """All of them, read again as they are wanted."""
        return Sums(self.described, self._tensors(), self.same, self.transposed)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        left = iter(self.described)
        for file in self.files:
            with safe_open(file, framework="pt", device="cpu") as opened:
                for _ in range(len(opened.keys())):
                    name = next(left)
                    yield name, opened.get_tensor(name)


def _in_order(described: Described, tensors: Mapping[str, Tensor]) -> Described:
    return {name: described[name] for name in tensors}


@contextmanager
def sums_behind_merges(
    live: LiveModel,
    engine: Engine,
    texts: Sequence[TokenText],
    usual: Merge,
    sources: Sequence[Checkpoint],
    locations: Mapping[str, Location | None],
    room: Path,
    most_bytes: int,
) -> Iterator[Callable[[Checkpoint], Sums]]:
    """The means of x x^T of each source's linear layers, where all layers before are those of the merge `usual`.

    Within a layer the inputs come out of the source's own tensors, as in section 3 of the paper. For each layer each
    source reads all `texts` once. What is found is kept in `room` meanwhile.
    """
    memory = _InMemory()
    merger = engine.uncached()
    merger.statistics = memory
    live.become(sources[0], engine)
    room.mkdir(parents=True, exist_ok=True)
    for left in room.glob(f"{SPOOL}*"):  # by a killed pass: the caller holds the directory's lock
        shutil.rmtree(left, ignore_errors=True)
    spooled = {source: _Spooled() for source in sources}
    with tempfile.TemporaryDirectory(prefix=SPOOL, dir=room) as place:
        for number, names in enumerate(_stages(live.parameters, locations)):
            own = {name: live.parameters[name] for name in names}
            memory.found.clear()
            for index, source in enumerate(sources):
                engine.merge_into(source, own)
                sums = input_sums(live, texts, squares=False, most_bytes=most_bytes, only=names)
                if sums.described:
                    file = Path(place) / f"{index}-{number}.safetensors"
                    found = spooled[source].add(finite(sums, source.name), file)
                    memory.found |= {(source.name, name): each for name, each in found.items()}
            merger.merge_into(usual, own)
        yield lambda source: spooled[source].sums()


def _stages(names: Mapping[str, object], locations: Mapping[str, Location | None]) -> list[list[str]]:
    """The tensors of the embeddings and all that is never merged, then those of each layer, then those of the head."""
    placed: dict[float, list[str]] = {}
    for name in names:
        at = locations.get(name)
        of_layer = math.inf if at is None or at.layer is None else at.layer
        first = at is None or at.module == EMBEDDINGS
        placed.setdefault(-1.0 if first else of_layer, []).append(name)
    return [placed[stage] for stage in sorted(placed)]
