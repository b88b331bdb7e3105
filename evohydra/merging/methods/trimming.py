"""Trimming a task vector by magnitude (TIES-Merging, arXiv 2306.01708, section 4.1)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evohydra.merging.kernels.fused import Stepped
from evohydra.merging.kernels.ranking import ABOVE_ALL, BELOW_ALL, Cut, Ranking, Values
from evohydra.merging.methods.requirements import need_base

ENDS = (BELOW_ALL, ABOVE_ALL)


def magnitudes(base: Tensor | None, model: Tensor) -> Values:
    """|theta - theta_base|, rounded to their type, as a function of a range of flat indices."""
    flat_base, flat_model = need_base(base).reshape(-1), model.reshape(-1)

    def values(start: int, stop: int) -> Tensor:
        return (flat_model[start:stop] - flat_base[start:stop]).abs_()

    return values


def rankings(base: Tensor | None, models: Sequence[Tensor]) -> list[Ranking]:
    """The order of magnitudes of each task vector: a provider for `once`."""
    return [Ranking(model.numel(), magnitudes(base, model)) for model in models]


def check_shares(name: str, shares: Sequence[float], models: Sequence[Tensor]) -> None:
    """ValueError unless there is a share in [0, 1] for each model."""
    if len(shares) != len(models) or not all(0.0 <= share <= 1.0 for share in shares):
        raise ValueError(f"{name} must lie in [0, 1] for each of {len(models)} models, got {list(shares)}")


def largest(
    base: Tensor | None, models: Sequence[Tensor], density: Sequence[float], ranks: Sequence[Ranking]
) -> list[Cut]:
    """For each task vector the cut above which are its max(1, int(density * n)) largest entries, none at density 0."""
    kept = [max(1, int(share * rank.size)) if share > 0 else 0 for share, rank in zip(density, ranks, strict=True)]
    return [
        rank.largest(count, magnitudes(base, model)) for model, count, rank in zip(models, kept, ranks, strict=True)
    ]


def at_least(cuts: Sequence[Cut], dtype: torch.dtype) -> Stepped:
    """The smallest value that is above each cut, along the tensor: of equal ones the first are."""
    return _along([(cut, cut.value, _next(cut.value, np.inf, dtype)) for cut in cuts])


def more_than(cuts: Sequence[Cut], dtype: torch.dtype) -> Stepped:
    """The smallest value that is not below each cut, along the tensor: of equal ones the first are."""
    return _along([(cut, _next(cut.value, np.inf, dtype), cut.value) for cut in cuts])


def at_most(cuts: Sequence[Cut], dtype: torch.dtype) -> Stepped:
    """The largest value that is below each cut, along the tensor: of equal ones the first are."""
    return _along([(cut, cut.value, _next(cut.value, -np.inf, dtype)) for cut in cuts])


def _along(limits: Sequence[tuple[Cut, float, float]]) -> Stepped:
    """From each cut's limit for entries up to its last one, and its limit behind."""
    starts = sorted({0, *(cut.last + 1 for cut, _, _ in limits)})

    def at(start: int) -> tuple[float, ...]:
        return tuple(upto if start <= cut.last or cut in ENDS else behind for cut, upto, behind in limits)

    return Stepped(tuple(starts), tuple(at(start) for start in starts))


def _next(value: float, towards: float, dtype: torch.dtype) -> float:
    """The number next to `value` in the type in which kernels compare numbers of `dtype`."""
    kind = np.float64 if dtype == torch.float64 else np.float32
    return float(np.nextafter(kind(value), kind(towards)))


def keep(delta: Tensor, which: Tensor) -> Tensor:
    """`delta` where `which`, else zero."""
    return torch.where(which, delta, 0.0)
