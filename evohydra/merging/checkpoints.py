"""Lazy, memory-mapped safetensors checkpoints: finding, reading, checking and fingerprinting them."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from evohydra.checks import check
from evohydra.files import check_plain_file, read_json
from evohydra.hub import SourceError as SourceError
from evohydra.hub.listing import PICKLED

INDEX = "model.safetensors.index.json"
# What stands beside the weights of quantised models: scales, zero points, packed weights.
SCALE = re.compile(
    r"(^|[./_])(weight_scale(_inv|_2)?|scale_weight|scale_input|input_scale|weight_global_scale|weight_zero_point|"
    r"weight_packed|weight_shape|qweight|qzeros|g_idx|SCB|weight_format|scaled_fp8|weight\.(absmax|quant_map|quant_state|"
    r"nested_absmax|nested_quant_map)\S*|\w*proj_(blocks|scales))$"
)
MASK = re.compile(r"\b(attn|attention)\.(masked_)?bias$|\bposition_ids$|\bnum_batches_tracked$|mask$")
BLOCK = 2**20  # entries
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class TensorSource(Protocol):
    """Named tensors that are read one at a time."""

    shapes: Mapping[str, tuple[int, ...]]

    def read(self, name: str) -> Tensor:
        """The tensor `name`, on the CPU, not to be written to."""
        ...


@runtime_checkable
class Changed(Protocol):
    """Tensors of which some are changed, by an adapter, as they are read; `changed` are their names."""

    changed: frozenset[str]


class CheckpointReader:
    """The tensors of a local checkpoint directory, read lazily from its safetensors files.

    Raises SourceError for a missing, truncated or inconsistent file, an index that points outside the directory, and
    for checkpoints that exist as pickles only.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: dict[str, object] = {}
        self._views: dict[str, Tensor] = {}  # of the mapped files: they hold no memory
        self._where = self._index()
        self.shapes: Mapping[str, tuple[int, ...]] = {name: self._shape(name) for name in sorted(self._where)}

    def _index(self) -> dict[str, str]:
        index, single = self.directory / INDEX, self.directory / "model.safetensors"
        if index.is_file() and not single.is_file():  # transformers too takes the whole file where there are both
            return self._sharded(index)
        if not single.is_file():
            found = sorted(self.directory.glob("*.safetensors"))
            if any(PICKLED.fullmatch(file.name) for file in self.directory.glob("*.bin")):
                found = []  # safetensors beside a pickled model are something else, an adapter for example
            if len(found) > 1:
                raise SourceError(f"{self.directory}: {len(found)} safetensors files and no {INDEX}")
            if not found:
                pickles = sorted(file.name for pattern in PICKLES for file in self.directory.glob(pattern))
                reason = (
                    f"only pickle files ({', '.join(pickles)}), which can run code and which evohydra does not load as "
                    "they are. model.sources.<name>.convert=weights_only converts them with a reader that refuses all "
                    "but tensors"
                    if pickles
                    else "no safetensors file"
                )
                raise SourceError(f"{self.directory}: expected model.safetensors or {INDEX}, found {reason}")
            single = found[0]
        return dict.fromkeys(self._open(single.name).keys(), single.name)

    def _sharded(self, index: Path) -> dict[str, str]:
        try:
            where: dict[str, str] = read_json(index)["weight_map"]
            check("weight_map", Mapping[str, str], where)
        except (ValueError, KeyError) as error:
            raise SourceError(f"{index}: expected a JSON object with a weight_map, got {error!r}") from error
        if not (shards := sorted(set(where.values()))):
            raise SourceError(f"{index}: expected a JSON object with a weight_map of tensors, got an empty one")
        for shard in shards:
            if Path(shard).name != shard or shard in ("", ".", ".."):
                raise SourceError(f"{index}: shard {shard!r} points outside the checkpoint's directory")
            if not (self.directory / shard).is_file():
                raise SourceError(f"{index}: shard {shard!r} is missing from {self.directory}")
        for name, shard in where.items():
            if name not in self._open(shard).keys():  # noqa: SIM118  (safe_open is no mapping)
                raise SourceError(f"{index}: tensor {name!r} is not in its shard {shard!r}")
        return where

    def _open(self, file: str) -> Any:
        if file not in self._files:
            try:
                check_plain_file(self.directory / file)
                self._files[file] = safe_open(self.directory / file, framework="pt", device="cpu")
            except ValueError as error:
                raise SourceError(str(error)) from error
            except (SafetensorError, OSError) as error:
                size = _size(self.directory / file)
                raise SourceError(
                    f"{self.directory / file}: truncated or corrupt safetensors file of {size} bytes ({error})"
                ) from error
        return self._files[file]

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._open(self._where[name]).get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        """The tensor `name` as stored, on the CPU; a view of the mapped file."""
        if name not in self._views:
            self._views[name] = self._open(self._where[name]).get_tensor(name)
        return self._views[name]


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


class Converted:
    """Tensors whose floating-point numbers are rounded to `dtype` as they are read; `stored` are those on disk."""

    def __init__(self, tensors: TensorSource, dtype: torch.dtype) -> None:
        self.shapes = tensors.shapes
        self.changed = tensors.changed if isinstance(tensors, Changed) else frozenset()
        self.stored, self._dtype = tensors, dtype

    def read(self, name: str) -> Tensor:
        """The tensor `name` in the chosen type; integers as they are."""
        tensor = self.stored.read(name)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor


@dataclass(frozen=True)
class Survey:
    """What one pass over all tensors finds.

    fingerprint: SHA-256 over the sorted names, types, shapes and bytes of all tensors, however they are sharded;
    integers: names of the tensors that are not floating-point numbers.
    """

    fingerprint: str
    integers: frozenset[str]


def survey(name: str, source: TensorSource) -> Survey:
    """Read every tensor of `source` once.

    Raises SourceError, with `name`, where one holds NaN or infinite numbers, or is a weight that is no plain number.
    """
    total = hashlib.sha256()
    integers = set()
    for tensor_name, shape in sorted(source.shapes.items()):
        tensor = source.read(tensor_name).contiguous()
        check_plain(name, tensor_name, tensor)
        if not tensor.is_floating_point():
            integers.add(tensor_name)
        elif bad := _not_finite(tensor):
            raise SourceError(f"source {name!r}: tensor {tensor_name!r} holds {bad} NaN or infinite numbers")
        total.update(f"{tensor_name}|{tensor.dtype}|{shape}|".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return Survey(total.hexdigest(), frozenset(integers))


def check_plain(source: str, name: str, tensor: Tensor) -> None:
    """SourceError for a weight of a quantised model: an average of what stands for numbers is no average of them."""
    plain = tensor.is_floating_point() and tensor.dtype.itemsize > 1
    counts = tensor.dtype in (torch.bool, torch.int64) or tensor.dim() == 0
    counts = counts and not name.endswith("weight")
    if SCALE.search(name) or not (plain or counts or MASK.search(name)):
        raise SourceError(
            f"source {source!r}: tensor {name!r} ({str(tensor.dtype).removeprefix('torch.')}) is part of a quantised "
            "weight; expected weights that are float32, bfloat16 or float16 numbers by themselves. Give the model that "
            "was quantised, or write it in such a type first"
        )


def _not_finite(tensor: Tensor) -> int:
    """How many numbers are NaN or infinite. A sum is non-finite where an element is; only then it looks closer.

    In the tensor's own type and in blocks: a conversion would take four times the memory of a bfloat16 tensor.
    """
    suspects = (block for block in torch.split(tensor.reshape(-1), BLOCK) if not math.isfinite(block.sum().item()))
    return sum(int((~block.isfinite()).sum()) for block in suspects)


def fingerprint(name: str, source: TensorSource) -> str:
    """The fingerprint of a survey of `source`."""
    return survey(name, source).fingerprint


def check_same_tensors(sources: Mapping[str, TensorSource]) -> None:
    """Raise SourceError, saying who has and who lacks them, for tensors that only some sources have."""
    first, *others = sources
    for name in others:
        for one, other in ((first, name), (name, first)):
            missing = sorted(set(sources[one].shapes) - set(sources[other].shapes))
            if missing:
                having = [each for each in sources if missing[0] in sources[each].shapes]
                lacking = [each for each in sources if missing[0] not in sources[each].shapes]
                raise SourceError(
                    f"sources {first!r} and {name!r} have different tensors: {len(missing)} of {_listed(having)} are "
                    f"missing from {_listed(lacking)}: {first_few(missing)} (another architecture or number of "
                    "layers? missing=base gives every source the tensors of the base)"
                )


def check_same_shapes(sources: Mapping[str, TensorSource]) -> None:
    """Raise SourceError, naming tensor and shapes, where a tensor of the first source is another size elsewhere."""
    (first, reference), *others = sources.items()
    for name, source in others:
        for tensor_name, shape in reference.shapes.items():
            if shape != source.shapes[tensor_name]:
                raise SourceError(
                    f"tensor {tensor_name!r} has shape {shape} in {first!r} and {source.shapes[tensor_name]} in "
                    f"{name!r}"
                )


def first_few(names: Sequence[str]) -> str:
    """The first three of the names, and whether there are more."""
    return ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(repr(name) for name in names)
