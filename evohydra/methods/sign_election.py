"""Electing a sign for each entry and merging what agrees (TIES-Merging, arXiv 2306.01708, sections 4.2 and 4.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def elect_and_sum(deltas: Sequence[Tensor], weight: Sequence[float], normalize: bool) -> Tensor:
    """The weighted sum of the entries whose sign is the elected one, of the shape of each delta.

    The elected sign is that of sum_k w_k delta_k, plus where it is 0; an entry counts where w_k delta_k is not 0 and
    has that sign. Where `normalize`, the sum is divided by the weights of the entries that count (by 1 where those sum
    to 0): with equal weights the paper's disjoint mean. mergekit's semantics.
    """
    weighted = [delta * factor for delta, factor in zip(deltas, weight, strict=True)]
    elected_positive = sum(weighted[1:], start=weighted[0]) >= 0
    result = torch.zeros_like(weighted[0])
    divisor = torch.zeros_like(weighted[0])
    for delta, factor in zip(weighted, weight, strict=True):
        agrees = torch.where(elected_positive, delta > 0, delta < 0)
        result += delta * agrees
        divisor += factor * agrees
    if normalize:
        result /= torch.where(divisor == 0, torch.ones_like(divisor), divisor)
    return result
