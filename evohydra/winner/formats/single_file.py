"""The plain format, and beside it one file in the layout that ComfyUI and the WebUIs read."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from evohydra.families import Family, LiveModel, WritesCheckpoints
from evohydra.families.comparison import Comparison
from evohydra.families.diffusion import Diffusion
from evohydra.families.noise_schedules import marks_of
from evohydra.families.original_layout import Piece, pieces
from evohydra.families.sources import OpenSources
from evohydra.files.tensors import write_tensors
from evohydra.merging.checkpoints import TensorSource
from evohydra.merging.engine import Engine
from evohydra.recipe import Node
from evohydra.winner.formats.plain import Plain

FILE = "single_file.safetensors"


class SingleFile:
    """A diffusers folder with `single_file.safetensors` in it: Stable Diffusion XL and 1.5."""

    def check(self, node: Node, family: Family, sources: OpenSources) -> None:
        """ValueError for other families."""
        if not isinstance(family, Diffusion) or not family.original:
            raise ValueError(
                "format=single_file: expected models of the families sdxl or stable_diffusion, got "
                f"{family.name}; format=plain writes all"
            )

    def write(
        self,
        node: Node,
        engine: Engine,
        family: Family,
        sources: OpenSources,
        directory: Path,
        dtype: torch.dtype,
        shard_bytes: int,
    ) -> str:
        """The folder, then the file from what is in it; returns the fingerprint of the folder's tensors."""
        assert isinstance(family, Diffusion)
        written = Plain().write(node, engine, family, sources, directory, dtype, shard_bytes)
        marks = marks_of(directory / "scheduler")
        write_original(family.open(directory, directory), family.original, directory / FILE, marks)
        return written

    def left_out(self, directory: Path) -> Mapping[str, object]:
        """Nothing."""
        return {}

    def verify(self, directory: Path, family: WritesCheckpoints, live: LiveModel) -> Comparison:
        """In what the folder, read back, differs from `live`: in weights, and in pixels."""
        return family.verify(directory, live)


def write_original(tensors: TensorSource, prefixes: Mapping[str, str], file: Path, marks: Sequence[str] = ()) -> None:
    """Write the components of `prefixes` in the original layout; each begins there as it says.

    `marks` are names of empty tensors beside them, by which such files say what their weights were trained with.
    """
    found: dict[str, tuple[str, Piece]] = {}
    for component, prefix in prefixes.items():
        names = [name.split("/", 1)[1] for name in tensors.shapes if name.startswith(f"{component}/")]
        found |= {prefix + name: (component, piece) for name, piece in pieces(component, names)}

    def parts(component: str, piece: Piece) -> list[Tensor]:
        return [tensors.read(f"{component}/{name}") for name in piece.names]

    shapes = {c: {n.split("/", 1)[1]: s for n, s in tensors.shapes.items() if n.startswith(f"{c}/")} for c in prefixes}
    described = {
        name: (tensors.read(f"{component}/{piece.names[0]}").dtype, piece.shape(shapes[component]))
        for name, (component, piece) in found.items()
    }
    made = ((name, piece.made(parts(c, piece))) for name, (c, piece) in found.items())
    described |= dict.fromkeys(marks, (torch.float32, (0,)))
    write_tensors(file, described, itertools.chain(made, ((mark, torch.zeros(0)) for mark in marks)))
