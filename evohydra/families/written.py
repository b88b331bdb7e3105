"""Winners read again from what was written of them: a checkpoint, or a base with an adapter."""

from pathlib import Path

import torch

from evohydra.families import Family, LiveModel, Overlay, RunsModels
from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.families.tensor_sets import HEADS
from evohydra.files import read_json
from evohydra.merging.checkpoints import CheckpointReader
from evohydra.merging.engine import Engine
from evohydra.merging.finding import locate
from evohydra.merging.low_rank import factors_of
from evohydra.recipe import Checkpoint

SETTINGS = "adapter_config.json"
STORED = "stored"  # what a checkpoint is called that is read anew


def read_again(family: Family, directory: Path, device: torch.device) -> LiveModel:
    """The model in `directory`, in the type that its files say (an adapter's base); SourceError where it is none."""
    if (directory / SETTINGS).is_file():
        return with_adapter(family, directory, device, None)
    live = family.live_model(directory, device, family.dtype(directory))
    live.become(Checkpoint(STORED, str(directory)), Engine({STORED: CheckpointReader(directory)}, device=device))
    return live


def with_adapter(family: RunsModels, directory: Path, device: torch.device, dtype: torch.dtype | None) -> LiveCausalLM:
    """The base that an adapter names, with its changes, in `dtype` or the base's own; each sum is rounded once."""
    assert isinstance(family, CausalLM)
    config = read_json(directory / SETTINGS)
    place = locate(config["base_model_name_or_path"], config["revision"], wanted=family.wanted(None))
    base = CheckpointReader(place)
    adapted = family.adapted(base, directory)
    headed = any(map(HEADS.search, adapted.shapes.keys() - base.shapes.keys()))
    overlay = Overlay(frozenset(adapted.shapes), {"tie_word_embeddings": False} if headed else {})
    live = family.live_model(place, device, dtype or family.dtype(place), overlay)
    for name, parameter in live.parameters.items():
        found = factors_of(adapted, name)
        stored = adapted.read(name) if found is None else found.origin.read(found.name)
        whole = stored.to(live.dtype)
        parameter.copy_(whole if found is None or found.change is None else found.change.added_to(whole))
    return live
