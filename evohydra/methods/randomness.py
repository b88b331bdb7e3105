"""Counter-based random numbers: a function of seed and position alone, the same on every device and in any order."""

import hashlib

import torch
from torch import Tensor


def stream_key(seed: int, *names: str) -> int:
    """A 32-bit key for the stream that belongs to (seed, names)."""
    digest = hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()
    return int.from_bytes(digest[:4], "little")


def uniforms(key: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Numbers in [0, 1) with 24 random bits, of `shape`, float32: a hash of (key, flat index).

    The hash is lowbias32 (C. Wellons, Prospecting for Hash Functions, 2018), applied twice to mix in the key, in int64
    because torch has no full 32-bit unsigned type: the low half of each product is all that is kept. Tensors of 2^32
    elements or more are a ValueError.
    """
    count = int(torch.Size(shape).numel())
    if count >= 2**32:
        raise ValueError(f"a tensor of {count} elements is too large: at most 2^32 - 1 can be masked")
    bits = _lowbias32(torch.arange(count, dtype=torch.int64, device=device))
    bits = _lowbias32(bits.bitwise_xor_(key))
    return (bits >> 8).to(torch.float32).mul_(2.0**-24).reshape(shape)


def _lowbias32(x: Tensor) -> Tensor:
    x = (x ^ (x >> 16)).mul_(0x7FEB352D).bitwise_and_(0xFFFFFFFF)
    x = (x ^ (x >> 15)).mul_(0x846CA68B).bitwise_and_(0xFFFFFFFF)
    return x ^ (x >> 16)
