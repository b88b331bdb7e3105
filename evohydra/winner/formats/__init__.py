"""Formats: how a recipe is written to disk as a checkpoint. One file each, chosen as `format=` on the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch

from evohydra.checks.registry import Registry
from evohydra.families import Family, LiveModel, WritesCheckpoints
from evohydra.families.comparison import Comparison
from evohydra.families.sources import OpenSources
from evohydra.merging.engine import Engine
from evohydra.recipe import Node

FORMATS = Registry(
    "written_as",
    {
        "lora": f"{__name__}.lora.Lora",
        "plain": f"{__name__}.plain.Plain",
        "shared": f"{__name__}.shared.Shared",
        "single_file": f"{__name__}.single_file.SingleFile",
    },
    former={
        "evohydra.formats.plain.Plain": "plain",
        "evohydra.formats.shared.Shared": "shared",
        "evohydra.formats.single_file.SingleFile": "single_file",
    },
)


class Format(Protocol):
    """A way to write checkpoints; made without arguments or with numbers, so that a recipe file can name it."""

    def check(self, node: Node, family: Family, sources: OpenSources) -> None:
        """ValueError or SourceError where checkpoints like `node` cannot be written: before anything is evaluated."""
        ...

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
        """Write weights in `dtype`, in files of at most `shard_bytes`, and all that goes with them.

        Returns the fingerprint of the tensors that were written.
        """
        ...

    def left_out(self, directory: Path) -> Mapping[str, object]:
        """What of the merge is not in what was written to `directory`, for a recipe file; `said` is a sentence of it.

        Empty where all is there.
        """
        ...

    def verify(self, directory: Path, family: WritesCheckpoints, live: LiveModel) -> Comparison:
        """In what the checkpoint in `directory`, read back, differs from `live`: in weights, and in outputs."""
        ...
