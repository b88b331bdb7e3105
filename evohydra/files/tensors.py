"""Safetensors files, written tensor by tensor."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

# safetensors' names of the types that checkpoints hold.
NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(
    file: Path,
    described: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    tensors: Iterable[tuple[str, torch.Tensor]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """A safetensors file of the `described` tensors, written one after the other as they come, with `metadata`.

    safetensors itself writes only what is in memory as a whole.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for name, (dtype, shape) in described.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors:
            dtype, shape = described[name]
            assert (tensor.dtype, tuple(tensor.shape)) == (dtype, shape), name
            opened.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            del tensor  # not kept while the next one is made
