"""Electing a sign for each entry and merging what agrees (TIES-Merging, arXiv 2306.01708, sections 4.2 and 4.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.arithmetic import stored
from evohydra.merging.kernels.fused import Entries
from evohydra.merging.methods.task_vectors import total, weighted

SELECTED = 3  # up to so many models the sums of weights are made beforehand, one for each set of models that agree


def weights_of_sets(weight: Sequence[float], dtype: torch.dtype) -> list[float]:
    """The weights, then for few models the reciprocals of what each set of them sums to: as `elected_sum` takes them.

    Bit k of a set's number says whether model k belongs to it. Sums of 0 count as 1.
    """
    if dtype.itemsize != 2 or len(weight) > SELECTED:
        return list(weight)
    sums = [sum(w for k, w in enumerate(weight) if chosen >> k & 1) for chosen in range(2 ** len(weight))]
    return [*weight, *(1 / whole if whole else 1.0 for whole in stored(sums, dtype))]


def elected_sum(entries: Entries, deltas: Sequence[Tensor], weights: Tensor, normalize: bool) -> Tensor:
    """The weighted sum of the entries whose sign is the elected one, of the shape of each delta.

    The elected sign is that of sum_k w_k delta_k, plus where it is 0; an entry counts where w_k delta_k is not 0 and
    has that sign. Where `normalize`, the sum is divided by the weights of the entries that count (by 1 where those sum
    to 0): with equal weights the paper's disjoint mean. mergekit's semantics. `weights` are as from `weights_of_sets`.
    """
    terms = weighted(entries, deltas, weights)
    elected = torch.where(total(terms) >= 0, 1.0, -1.0)
    agrees = [term * elected > 0 for term in terms]
    mixed = entries.rounded(total([torch.where(which, term, 0.0) for which, term in zip(agrees, terms, strict=True)]))
    if not normalize:
        return mixed
    if entries.dtype.itemsize == 2 and len(terms) <= SELECTED:  # rounds to the same number, see `divided`
        return entries.rounded(mixed * _selected(weights, len(terms), agrees, 0))
    divisor = entries.rounded(total([torch.where(which, weights[k], 0.0) for k, which in enumerate(agrees)]))
    return entries.rounded(mixed / torch.where(divisor == 0, 1.0, divisor))


def _selected(weights: Tensor, count: int, agrees: Sequence[Tensor], chosen: int) -> Tensor:
    """The reciprocal of the set of models that agree, of which `chosen` are those after the ones in `agrees`."""
    if not agrees:
        return weights[count + chosen]
    k = len(agrees) - 1
    one, other = (_selected(weights, count, agrees[:-1], chosen | bit << k) for bit in (1, 0))
    return torch.where(agrees[-1], one, other)
