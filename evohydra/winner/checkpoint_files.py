"""The winner on disk: an ordinary Hugging Face checkpoint with its recipe, written whole or not at all."""

import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError

from evohydra.families import Fused, Part
from evohydra.files import all_on_disk, on_disk, read_json
from evohydra.merging.checkpoints import CheckpointReader, fingerprint
from evohydra.merging.engine import Engine
from evohydra.merging.tensor_files import write_tensors
from evohydra.recipe import FORMAT, Node

WHOLE = Part()
# What evohydra writes into a checkpoint's directory.
WRITTEN = (
    "*.safetensors", "*.json", "*.jinja", "*.model", "vocab.txt", "merges.txt", "README.md", "mergekit.yaml", "*.png",
)  # fmt: skip


class ArtifactError(OSError):
    """A checkpoint that could not be written; nothing of it is left behind."""


@contextmanager
def whole_directory(
    target: Path, final: Callable[[], Path] | None = None, known_as: Path | None = None, overwrite: bool = False
) -> Iterator[Path]:
    """A directory to write into that becomes `target` when all went well, and vanishes otherwise.

    `final` is asked at the end for another name, where what was written decides on it. `known_as`: the place that
    messages name, where `target` is moved there later. With `overwrite` a directory that evohydra wrote is replaced.

    Raises ArtifactError where something else is there, and where the disk is full or cannot be written to.
    """
    temporary = target.with_name(f".{target.name}.partial")
    where = known_as or target
    check_replaceable(target, overwrite)
    try:
        temporary.mkdir(parents=True)
    except FileExistsError as error:
        raise ArtifactError(
            f"{temporary} exists, from a command that was killed or is not done yet; remove it if it was killed"
        ) from error
    except OSError as error:
        raise ArtifactError(f"could not write {where}: {error}") from error
    try:
        yield temporary
        all_on_disk(temporary)
        target = final() if final else target
        check_replaceable(target, overwrite)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
        on_disk(target.parent)
    except ArtifactError:
        raise
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"could not write {where}: {error}. Nothing half-written was left there") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_replaceable(target: Path, overwrite: bool) -> None:
    """ArtifactError where at `target` is anything but an empty directory, or, with `overwrite`, one of evohydra's."""
    if not (target.exists() or target.is_symlink()):
        return
    plain = target.is_dir() and not target.is_symlink()
    if plain and not any(target.iterdir()):
        return
    if not overwrite:
        raise ArtifactError(f"{target} exists; give a directory that does not, or an empty one")
    strange = _strange(target) if plain else "a file or a link"
    if strange is not None:
        raise ArtifactError(
            f"{target}: expected a directory that evohydra wrote, and nothing else in it, got {strange}; remove it "
            "yourself if you do not need it"
        )


def _strange(directory: Path) -> str | None:
    """Why a directory may be another's than a checkpoint that evohydra wrote; None where it is none."""
    try:
        if read_json(directory / "recipe.json").get("format") != FORMAT:
            return "a recipe.json of another format"
    except (OSError, ValueError):
        return "one without a recipe.json"
    for path in sorted(directory.rglob("*")):
        usual = path.is_dir() or any(path.match(pattern) for pattern in WRITTEN)
        if path.is_symlink() or path.name.startswith(".") or not usual:
            return str(path.relative_to(directory))
    return None


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
