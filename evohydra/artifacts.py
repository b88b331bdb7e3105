"""The winner on disk: an ordinary Hugging Face checkpoint with its recipe, written whole or not at all."""

import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from evohydra.checkpoints import INDEX, CheckpointReader, fingerprint
from evohydra.families import Family
from evohydra.merge import Engine
from evohydra.recipe import Node

FORMAT = 1
PACKAGES = ("evohydra", "torch", "transformers", "safetensors", "lm-eval", "hydra-core", "cmaes", "scipy", "numpy")


class ArtifactError(OSError):
    """A checkpoint that could not be written; nothing of it is left behind."""


@contextmanager
def whole_directory(target: Path) -> Iterator[Path]:
    """A directory to write into that becomes `target` when all went well, and vanishes otherwise.

    Raises ArtifactError where the disk is full or cannot be written to.
    """
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"could not write {target}: {error}. Nothing half-written was left there") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_weights(node: Node, engine: Engine, directory: Path, dtype: torch.dtype, shard_bytes: int) -> str:
    """Merge `node` tensor by tensor into safetensors shards of at most `shard_bytes`; returns their fingerprint."""
    shards: list[list[str]] = [[]]
    size = total = 0
    for name, shape in engine.shapes(node).items():
        needed = torch.Size(shape).numel() * dtype.itemsize
        if shards[-1] and size + needed > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += needed
        total += needed
    files = (
        ["model.safetensors"]
        if len(shards) == 1
        else [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    )
    for file, names in zip(files, shards, strict=True):
        tensors = {name: _stored(engine.tensor(node, name), dtype) for name in names}
        save_file(tensors, directory / file, metadata={"format": "pt"})
        (directory / file).chmod(0o644)  # safetensors writes for the owner alone
    if len(files) > 1:
        where = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return fingerprint("merge", CheckpointReader(directory))


def _stored(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()


def recipe_file(
    node: Node,
    family: Family,
    files_from: str,
    tokenizer: str,
    dtype: torch.dtype,
    shard_bytes: int,
    search: Mapping[str, Any],
) -> dict[str, Any]:
    """A recipe as self-contained JSON data; `files_from` gives configuration and tokenizer."""
    return {
        "format": FORMAT,
        "family": f"{type(family).__module__}.{type(family).__qualname__}",
        "files_from": files_from,
        "tokenizer": tokenizer,
        "dtype": str(dtype).removeprefix("torch."),
        "shard_bytes": shard_bytes,
        "recipe": node.to_dict(),
        "search": dict(search),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """What this run was made with."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}
