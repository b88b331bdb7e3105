"""Counter-based random bits: a function of stream and position alone, the same on every device and in any order."""

import functools
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

STEPS: int = 2**16


@functools.lru_cache(maxsize=2**14)
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


def keys(streams: Sequence[int]) -> tuple[list[int], list[int]]:
    """For each stream what `random_words` mixes in: a number and an odd factor, each of bits of its own."""
    pairs = [_key(stream) for stream in streams]
    return [key for key, _ in pairs], [factor for _, factor in pairs]


def random_words(scatter: Tensor, key: Tensor, factor: Tensor) -> Tensor:
    """A random int32 for each entry, of which the upper 16 bits are used: (scatter xor key) * factor, modulo 2^32.

    Multiplicative hashing (Dietzfelbinger et al., J. Algorithms 25, 1997) of numbers that are well mixed already.
    """
    return (scatter ^ key) * factor


@functools.lru_cache(maxsize=2**14)
def _key(stream: int) -> tuple[int, int]:
    mixed = _lowbias32(stream % 2**32)
    return _signed(mixed), _signed(_lowbias32((mixed ^ 0x9E3779B9) % 2**32) | 1)


def _lowbias32(x: int) -> int:
    x = (x ^ x >> 16) * 0x7FEB352D % 2**32
    x = (x ^ x >> 15) * 0x846CA68B % 2**32
    return x ^ x >> 16


def _signed(x: int) -> int:
    return x - 2**32 if x >= 2**31 else x


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
