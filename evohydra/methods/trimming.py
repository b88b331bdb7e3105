"""Trimming a task vector to its entries of largest magnitude (TIES-Merging, arXiv 2306.01708, section 4.1)."""

from typing import NamedTuple

import torch
from torch import Tensor


class Cut(NamedTuple):
    """Where trimming cuts: entries above `magnitude` stay, of those equal to it the ones up to flat index `last`."""

    magnitude: float
    last: int


def magnitude_order(delta: Tensor) -> Tensor:
    """Flat indices by falling magnitude, equal ones in the order of the tensor; (n,) int64."""
    return delta.reshape(-1).abs().argsort(descending=True, stable=True)


def cut(delta: Tensor, order: Tensor, density: float) -> Cut:
    """The cut that keeps exactly max(1, int(density * n)) entries; `order` as from `magnitude_order`.

    ValueError unless 0 <= density <= 1. An empty tensor has nothing to cut.
    """
    if not 0.0 <= density <= 1.0:
        raise ValueError(f"density must lie in [0, 1], got {density}")
    if delta.numel() == 0:
        return Cut(0.0, 0)
    kept = max(1, int(density * delta.numel()))
    last = int(order[kept - 1])
    return Cut(float(delta.reshape(-1)[last].abs()), last)


def trim(delta: Tensor, at: Cut) -> Tensor:
    """`delta` with all entries beyond the cut set to zero."""
    magnitude = delta.abs()
    index = torch.arange(delta.numel(), device=delta.device).reshape(delta.shape)
    keep = (magnitude > at.magnitude) | ((magnitude == at.magnitude) & (index <= at.last))
    return delta * keep
