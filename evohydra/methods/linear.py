"""Weighted average of models (Model Soups, arXiv 2203.05482, section 2)."""

from collections.abc import Sequence

from torch import Tensor

from evohydra.methods import elementwise
from evohydra.methods.fused import Entries, fused
from evohydra.methods.task_vectors import check_weights, combination


@fused
def _average(entries: Entries, weights: Tensor, *, normalize: bool) -> Tensor:
    mixed = combination(entries, weights)
    return mixed * weights[len(entries.models)] if normalize else mixed


@elementwise
def linear(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    normalize: bool = True,
    out: Tensor | None = None,
) -> Tensor:
    """sum_k w_k theta_k, over sum_k w_k where `normalize`, in float32 and rounded once. The base takes no part.

    The sum is multiplied by the reciprocal of sum_k w_k; mergekit divides, which may differ in the last place.
    """
    check_weights(weight, models, normalize)
    reciprocal = 1 / sum(weight) if normalize else 1.0
    return _average(None, models, [*map(float, weight), reciprocal], normalize=normalize, out=out)
