"""Counter-based random bits: a function of stream and position alone, the same on every device and in any order."""

import hashlib

import torch
from torch import Tensor

BITS = 16
STEPS: int = 2**BITS


def stream_key(seed: int, *names: str) -> int:
    """A 32-bit key, as a signed integer, for the stream that belongs to (seed, names)."""
    digest = hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()
    return int.from_bytes(digest[:4], "little", signed=True)


def scattered(positions: Tensor) -> Tensor:
    """lowbias32 of int32 positions (C. Wellons, Prospecting for Hash Functions, 2018); what streams have in common."""
    x = positions
    x = (x ^ _shifted(x, 16)) * 0x7FEB352D
    x = (x ^ _shifted(x, 15)) * (0x846CA68B - 2**32)
    return x ^ _shifted(x, 16)


def random_bits(scatter: Tensor, stream: Tensor) -> Tensor:
    """16 random bits for each entry, int32 in [0, 2^16): the upper half of lowbias32(scatter xor stream)."""
    x = scatter ^ stream
    x = (x ^ _shifted(x, 16)) * 0x7FEB352D
    x = (x ^ _shifted(x, 15)) * (0x846CA68B - 2**32)
    return _shifted(x, 16)  # the hash's last step changes the lower half alone


def _shifted(x: Tensor, places: int) -> Tensor:
    """To the right, as if int32 were unsigned."""
    shifted: Tensor = (x >> places) & (2 ** (32 - places) - 1)
    return shifted


def threshold(density: float) -> int:
    """Of 2^16 equally likely values, how many keep an entry: the density to the nearest 2^-16."""
    return round(density * STEPS)


def positions_of(start: int, stop: int) -> Tensor:
    """Flat indices from `start` to `stop`, int32, modulo 2^32."""
    return torch.arange(start, stop, dtype=torch.int64).to(torch.int32)
