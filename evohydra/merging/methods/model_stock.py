"""Model Stock: how far to go from the base to the average, from the angles between models (arXiv 2403.19522)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.arithmetic import wide
from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.kernels.lines import Line, as_lines, at_lines, dots, norms, spacing
from evohydra.merging.methods import once
from evohydra.merging.methods.requirements import need_base, need_models

SMALLEST = 1e-6  # product of norms below which they count as this; denominators below it give the base


@fused
def _between(entries: Entries, t: Tensor, spaced: Tensor, *, axis: Line) -> Tensor:
    ratio = at_lines(t, entries.positions(), spaced, axis)
    average = entries.models[0]
    for model in entries.models[1:]:
        average = entries.rounded(average + model)
    average = entries.rounded(average / float(len(entries.models)))
    rest = entries.rounded(1.0 - ratio)
    return entries.rounded(ratio * average) + entries.rounded(rest * entries.base)


def ratios(base: Tensor | None, models: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """t of the whole tensor, (1,), and of each of its rows, (rows,), in the type of the models."""
    need_models("model_stock", models, 2)
    origin = need_base(base)
    return _ratio(origin, models, "whole"), _ratio(origin, models, "rows")


def _ratio(base: Tensor, models: Sequence[Tensor], axis: Line) -> Tensor:
    """t = N cos / (1 + (N - 1) cos), the paper's equation for N models, with the mean cosine of all pairs."""
    vectors = [as_lines(model - base, axis) for model in models]
    lengths = [norms(vector) for vector in vectors]
    cosines = [
        (dots(vectors[i], vectors[j]) / (lengths[i] * lengths[j]).clamp(min=SMALLEST)).clamp(-1, 1)
        for i in range(len(models))
        for j in range(i + 1, len(models))
    ]
    total = sum(map(wide, cosines[1:]), start=wide(cosines[0]))
    cosine = (total / len(cosines)).to(cosines[0].dtype)
    denominator = 1 + (len(models) - 1) * cosine
    singular = denominator.abs() < SMALLEST
    return torch.where(singular, 0, len(models) * cosine / torch.where(singular, 1, denominator))


@once(ratio=ratios)
def model_stock(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    ratio: tuple[Tensor, Tensor],
    filter_wise: bool = False,
    scaling: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """t theta_avg + (1 - t) theta_base, with t from the angles of the tensor or, `filter_wise`, of each of its rows.

    Takes at least two models beside the base. `scaling` multiplies t; mergekit and the paper have 1. Task vectors that
    are 0, or that oppose each other so that t has no finite value, give the base, as in mergekit.
    """
    need_models("model_stock", models, 2)
    axis: Line = "rows" if filter_wise else "whole"
    t = scaling * ratio[filter_wise]
    return _between(need_base(base), models, t.tolist(), [spacing(models[0], axis)], axis=axis, out=out)
