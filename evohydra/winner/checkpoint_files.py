"""The weights of a merge on disk: safetensors files, written tensor by tensor."""

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from huggingface_hub import split_state_dict_into_shards_factory

from evohydra.families import Fused, Part
from evohydra.files.tensors import write_tensors
from evohydra.merging.checkpoints import CheckpointReader, fingerprint
from evohydra.merging.engine import Engine
from evohydra.recipe import Node

WHOLE = Part()


def write_weights(
    node: Node,
    engine: Engine,
    directory: Path,
    dtype: torch.dtype,
    shard_bytes: int,
    beside: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> str:
    """Merge `node` tensor by tensor into safetensors shards of at most `shard_bytes`; returns their fingerprint.

    The small tensors `beside` those of `node` are written as they are, into the last shard.
    """
    write_part(node, engine, directory, dtype, shard_bytes, beside=beside)
    return fingerprint("merge", CheckpointReader(directory))


def write_part(
    node: Node,
    engine: Engine,
    directory: Path,
    dtype: torch.dtype,
    shard_bytes: int,
    part: Part = WHOLE,
    fused: Mapping[str, Fused] = MappingProxyType({}),
    beside: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> None:
    """Merge one part of the tensors of `node`, with what is `fused` into them, into files of its own."""
    shapes = engine.shapes(node)
    sizes = {name: math.prod(shape) * dtype.itemsize for name, shape in shapes.items() if name.startswith(part.prefix)}
    shards = planned(sizes, part.stem, shard_bytes)
    bare = {name: name.removeprefix(part.prefix) for name in shapes}
    last = list(shards)[-1]
    for file, names in shards.items():
        types = {name: _stored_type(node, engine, name, dtype) for name in names}
        tensors = ((bare[n], _finished(engine.tensor(node, n).to("cpu", types[n]), fused.get(n))) for n in names)
        described = {bare[name]: (types[name], tuple(shapes[name])) for name in names}
        extra = beside if file == last else {}
        described |= {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in extra.items()}
        write_tensors(directory / file, described, itertools.chain(tensors, extra.items()))
    if len(shards) > 1:
        where = {bare[name]: file for file, names in shards.items() for name in names}
        where |= dict.fromkeys(beside, last)
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
        (directory / f"{part.stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def planned(sizes: Mapping[str, int], stem: str, shard_bytes: int) -> dict[str, list[str]]:
    """The files of tensors of these sizes in bytes, in their order: the names in each, at most `shard_bytes` together.

    A larger tensor has a file for itself. It counts as `shard_bytes` here: huggingface_hub would write it before the
    tensors that come before it, and recipes promise the files as they have always been.
    """
    split = split_state_dict_into_shards_factory(
        {name: min(size, shard_bytes) for name, size in sizes.items()},
        get_storage_size=lambda size: size,
        filename_pattern=f"{stem}{{suffix}}.safetensors",
        max_shard_size=shard_bytes,
    )
    return dict(split.filename_to_tensors) or {f"{stem}.safetensors": []}


def _finished(tensor: torch.Tensor, fused: Fused | None) -> torch.Tensor:
    return tensor if fused is None else fused.added_to(tensor)


def _stored_type(node: Node, engine: Engine, name: str, dtype: torch.dtype) -> torch.dtype:
    """`dtype`, but for integers that are copied."""
    if engine.merges(node, name):
        return dtype
    copied = engine.tensor(node, name)
    return dtype if copied.is_floating_point() else copied.dtype
