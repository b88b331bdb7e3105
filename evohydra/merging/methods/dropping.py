"""Dropping entries of task vectors at random and rescaling the rest (DARE, arXiv 2311.03099, equations 1 and 2)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evohydra.merging.kernels.fused import Entries
from evohydra.merging.kernels.randomness import STEPS, keys, positions_of, random_words, scattered
from evohydra.merging.methods.trimming import BLOCK, magnitudes, norm_factor

RESCALES = ("none", "density", "l1")


class KeptNorm:
    """How much of a task vector's L1 norm is kept by the masks of one stream, at every density.

    An entry is kept where its key is below a threshold; `sums` has the norm of all entries whose key is at most that of
    the same place in `keys`.
    """

    def __init__(self, histogram: NDArray[np.float64], lowest: int) -> None:
        used = np.flatnonzero(histogram)
        self._keys = (used + lowest).astype(np.int32)
        self._sums = np.cumsum(histogram[used])
        self.nbytes: int = self._keys.nbytes + self._sums.nbytes

    def kept(self, below: int) -> float:
        """The L1 norm of the entries whose key is below `below`."""
        place = int(np.searchsorted(self._keys, np.int32(below), "left"))  # of another type, numpy would convert all
        return float(self._sums[place - 1]) if place else 0.0

    def factor(self, below: int, dtype: torch.dtype) -> float:
        """What gives those entries the L1 norm that all of them had, see `norm_factor`."""
        return norm_factor(self.kept(2**30), self.kept(below), dtype)


Offsets = Callable[[int, int], NDArray[np.int64]]


def kept_norm(base: Tensor | None, model: Tensor, stream: int, offsets: Offsets | None = None) -> KeptNorm:
    """The table of one model; `offsets(start, stop)` are taken from the random bits to give the keys."""
    values = magnitudes(base, model)
    lowest = -STEPS  # room for offsets of less than half of the steps
    histogram = np.zeros(2 * STEPS, np.float64)
    key, factor = (torch.tensor(each, dtype=torch.int32) for each in keys([stream]))
    for start in range(0, model.numel(), BLOCK):
        stop = min(model.numel(), start + BLOCK)
        words = (random_words(scattered(positions_of(start, stop)), key, factor) >> 16).numpy().astype(np.int64)
        if offsets is not None:
            words = words - offsets(start, stop)
        weights = values(start, stop).to("cpu", torch.float64).numpy()
        histogram += np.bincount(words - lowest, weights=weights, minlength=len(histogram))
    return KeptNorm(histogram, lowest)


def check_rescale(rescale: str) -> None:
    """ValueError for a rescaling that there is not."""
    if rescale not in RESCALES:
        raise ValueError(f"rescale must be one of {', '.join(RESCALES)}, got {rescale!r}")


def factors(
    rescale: str, density: Sequence[float], below: Sequence[int], norms: Sequence[KeptNorm], dtype: torch.dtype
) -> list[float]:
    """What each kept task vector is multiplied by: 1 / density as in the paper, to its L1 norm as in mergekit, or 1.

    0 at a density of 0, and 1 where everything is kept.
    """
    scales = {
        "none": [1.0 for _ in density],
        "density": [1.0 / share if share > 0 else 0.0 for share in density],
        "l1": [norm.factor(limit, dtype) for norm, limit in zip(norms, below, strict=True)] if norms else [],
    }[rescale]
    return [0.0 if share == 0 else 1.0 if share == 1 else scale for share, scale in zip(density, scales, strict=True)]


def drop(entries: Entries, delta: Tensor, kept: Tensor, factor: Tensor) -> Tensor:
    """`delta` where `kept`, rescaled, else 0."""
    return entries.rounded(torch.where(kept, delta, 0.0) * factor)
