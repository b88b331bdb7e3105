"""Averages in which each entry, or each channel, of a source has a weight of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.exact import added
from evohydra.merging.methods.linear import linear
from evohydra.merging.methods.requirements import need_at_least
from evohydra.merging.methods.task_vectors import check_weights, total

LEAST = 1e-6  # of the mean importance: what every entry has at least, so that no two zeros are divided
BLOCK = 2**20  # entries that are float64 at a time


def check_shares(weight: Sequence[float], models: Sequence[Tensor]) -> None:
    """ValueError unless there is a weight of at least 0 for each model, and one above 0."""
    check_weights(weight, models, normalize=True)
    for number, value in enumerate(weight, 1):
        need_at_least(f"weight of model {number}", value, 0.0)


def average(models: Sequence[Tensor], weight: Sequence[float], out: Tensor | None = None) -> Tensor:
    """sum_k w_k theta_k / sum_k w_k: what tensors get of which no pass has found anything."""
    merged: Tensor = linear(None, models, weight=weight, normalize=True, out=out)
    return merged


def only_one(models: Sequence[Tensor], weight: Sequence[float]) -> Tensor | None:
    """The one model whose weight is not 0, which is then the merge; None where there are several."""
    having = [model for model, value in zip(models, weight, strict=True) if value > 0]
    return having[0] if len(having) == 1 else None


def average_by_importance(models: Sequence[Tensor], importances: Sequence[Tensor], weight: Sequence[float]) -> Tensor:
    """sum_k w_k s_k theta_k / sum_k w_k s_k, entry by entry, in float64 and rounded once.

    importances: s_k, of the models' shape, (..., n), or (n,) for each channel of the last index. Each s_k has LEAST
    times the mean of all added to it: entries that matter to no source get the weighted average.
    """
    sums = [added(s.double().reshape(1, -1)).squeeze(0) for s in importances]
    least = LEAST * float(total(sums)) / max(1, sum(s.numel() for s in importances))
    if not least:
        return average(models, weight)
    merged = torch.empty_like(models[0], memory_format=torch.contiguous_format)
    width = models[0].shape[-1] if models[0].dim() else 1
    rows = [model.reshape(-1, width) for model in models]
    spread = [(s.double() + least).expand(models[0].shape).reshape(-1, width) for s in importances]
    flat, step = merged.reshape(-1, width), max(1, BLOCK // max(1, width))
    for top in range(0, len(flat), step):
        at = slice(top, top + step)
        shares = [value * s[at] for value, s in zip(weight, spread, strict=True)]
        mixed = total([share * row[at].double() for share, row in zip(shares, rows, strict=True)])
        flat[at] = (mixed / total(shares)).to(merged.dtype)
    return merged
