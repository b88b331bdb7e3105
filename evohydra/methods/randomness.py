"""Counter-based random bits: a function of stream and position alone, the same on every device and in any order."""

import hashlib

import torch
from torch import Tensor

STEPS: int = 2**16


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


def random_words(scatter: Tensor, stream: Tensor) -> Tensor:
    """A random int32 for each entry, of which the upper 16 bits are used.

    lowbias32(scatter xor stream) without its first step, which `scattered` has just done, and its last, which changes
    the lower bits alone.
    """
    x = (scatter ^ stream) * 0x7FEB352D
    return (x ^ _shifted(x, 15)) * (0x846CA68B - 2**32)


def _shifted(x: Tensor, places: int) -> Tensor:
    """To the right, as if int32 were unsigned."""
    shifted: Tensor = (x >> places) & (2 ** (32 - places) - 1)
    return shifted


def threshold(density: float) -> int:
    """Below which upper half of a random word an entry is kept: the density to the nearest 2^-16, of STEPS values."""
    return round(density * STEPS) - STEPS // 2


def last_word(below: int) -> int:
    """The largest random word whose upper half is below `below` (and -2^31 where there is none)."""
    return max(below * 2**16 - 1, -(2**31))


def positions_of(start: int, stop: int) -> Tensor:
    """Flat indices from `start` to `stop`, int32, modulo 2^32."""
    return torch.arange(start, stop, dtype=torch.int64).to(torch.int32)
