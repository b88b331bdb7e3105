"""The format that everything loads: a checkpoint of the sources' own architecture, with a layer for each hop."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from evohydra.families import Family, LiveModel, WritesCheckpoints
from evohydra.families.comparison import Comparison
from evohydra.families.sources import OpenSources
from evohydra.merging.checkpoints import fingerprint
from evohydra.merging.engine import Engine
from evohydra.recipe import Node, Stack
from evohydra.winner.checkpoint_files import write_part


class Plain:
    """Scales of a path are folded into its weights (see `path_tensors`), layers are written as often as it visits."""

    def check(self, node: Node, family: Family, sources: OpenSources) -> None:
        """ValueError or SourceError where the configuration has no words for layers like those of `node`."""
        if isinstance(node, Stack):
            family.path_config(sources.directories, node)

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
        """Weights, configuration, tokenizer; returns the fingerprint of the weights."""
        overlay = sources.overlay
        if isinstance(node, Stack):
            changes = family.path_config(sources.directories, node, overlay.chosen)
            overlay = replace(overlay, config={**overlay.config, **changes})
        family.copy_files(sources.directories[sources.files_from], directory, dtype, overlay)
        for part in family.parts(overlay):
            write_part(node, engine, directory / part.prefix, dtype, shard_bytes, part, overlay.fused)
        return fingerprint("merge", family.open(directory, directory))

    def left_out(self, directory: Path) -> Mapping[str, object]:
        """Nothing."""
        return {}

    def verify(self, directory: Path, family: WritesCheckpoints, live: LiveModel) -> Comparison:
        """In what the checkpoint in `directory`, read back, differs from `live`: in weights, and in outputs."""
        return family.verify(directory, live)
