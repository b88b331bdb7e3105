"""Recipe files for the benchmarks: a method of conf/merge at the defaults of its yaml, as a run would write them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra.utils
import torch

from evohydra.families import Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.declared import BASE
from evohydra.merging.checkpoints import CheckpointReader
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Merge
from evohydra.spaces.grouping import Location
from evohydra.winner.formats.plain import Plain
from evohydra.winner.recipe_files import recipe_file
from tests.contracts.discovery import composed


def default_merge(method: str, base: Path, models: Sequence[Path], layers: int | None = None) -> Merge:
    """What conf/merge/<method>.yaml does by default to the checkpoints, of which the first `layers` layers are merged.

    Raises ValueError where the method takes another number of models.
    """
    nodes = tuple(Checkpoint(f"source{i}", str(path)) for i, path in enumerate(models))
    locations = {
        name: place if layers is None or _within(place, layers) else None
        for name, place in CausalLM().locations(base, tuple(CheckpointReader(base).shapes)).items()
    }
    space = hydra.utils.instantiate(composed(f"merge={method}")["merge"]["parameter"])
    merge: Merge = space(models=nodes, base=Checkpoint(BASE, str(base)), locations=locations).default()
    merge = replace(merge, groups=tuple(group for group in merge.groups if group.tensors))
    readers = {node.name: CheckpointReader(Path(node.path)) for node in (*nodes, Checkpoint(BASE, str(base)))}
    Engine(readers, device=torch.device("cpu"), cache_bytes=0).probe(merge)
    return merge


def _within(place: Location | None, layers: int) -> bool:
    return place is not None and place.layer is not None and place.layer < layers


def as_file(merge: Merge, shard_bytes: int) -> dict[str, Any]:
    """The content of the recipe file of a merge in the type of its sources, written in bfloat16."""
    recipe = recipe_file(merge, CausalLM(), BASE, Plain(), None, torch.bfloat16, shard_bytes, {})
    return {**recipe, **Rules().to_dict()}
