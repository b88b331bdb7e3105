"""Trimming a task vector by magnitude (TIES-Merging, arXiv 2306.01708, section 4.1)."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evohydra.merging.kernels.arithmetic import stored
from evohydra.merging.kernels.fused import Stepped
from evohydra.merging.kernels.ranking import ABOVE_ALL, BELOW_ALL, Cut, Ranking, Values
from evohydra.merging.methods.requirements import need_base

ENDS = (BELOW_ALL, ABOVE_ALL)
TRIMMED_RESCALES = ("none", "l1")
BLOCK = 2**20  # entries
NEGLIGIBLE = 1e-7  # L1 norms below this are not divided by, as in mergekit


def magnitudes(base: Tensor | None, model: Tensor) -> Values:
    """|theta - theta_base|, rounded to their type, as a function of a range of flat indices."""
    flat_base, flat_model = need_base(base).reshape(-1), model.reshape(-1)

    def values(start: int, stop: int) -> Tensor:
        return (flat_model[start:stop] - flat_base[start:stop]).abs_()

    return values


def norm_factor(before: float, after: float, dtype: torch.dtype) -> float:
    """What gives entries with the L1 norm `after` the one `before`; 1 where there is nothing to divide by.

    Both norms and their quotient are rounded to bfloat16 where that is the type, as in mergekit.
    """
    if min(before, after) < NEGLIGIBLE:
        return 1.0
    if dtype != torch.bfloat16:
        return before / after
    before, after = stored([before, after], dtype)
    return stored([before / after], dtype)[0]


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


def restored(
    base: Tensor | None,
    models: Sequence[Tensor],
    density: Sequence[float],
    rescale: str,
    least: Stepped,
    most: Stepped | None = None,
) -> list[float]:
    """What each trimmed task vector is multiplied by: with `rescale` "l1" it then has the L1 norm from before, else 1.

    Entries stay where their magnitude is at least `least` and at most `most`. ValueError for another `rescale`.
    """
    if rescale not in TRIMMED_RESCALES:
        raise ValueError(f"rescale must be one of {', '.join(TRIMMED_RESCALES)}, got {rescale!r}")
    if rescale == "none":
        return [1.0 for _ in models]
    return [
        1.0 if share >= 1 else _to_norm(base, model, k, least, most)
        for k, (model, share) in enumerate(zip(models, density, strict=True))
    ]


def _to_norm(base: Tensor | None, model: Tensor, k: int, least: Stepped, most: Stepped | None) -> float:
    values, before, after = magnitudes(base, model), 0.0, 0.0
    starts = {*range(0, model.numel(), BLOCK), *least.starts, *(most.starts if most else ())}
    bounds = [*sorted(start for start in starts if start < model.numel()), model.numel()]
    for start, stop in itertools.pairwise(bounds):
        block = values(start, stop).to(torch.float64)
        kept = block >= least.at(start)[k]
        if most is not None:
            kept &= block <= most.at(start)[k]
        before += float(block.sum())
        after += float(block[kept].sum())
    return norm_factor(before, after, model.dtype)
