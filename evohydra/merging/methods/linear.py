"""Weighted average of models (Model Soups, arXiv 2203.05482, section 2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.arithmetic import multiply_add
from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.methods import elementwise, linear_in_task_vectors
from evohydra.merging.methods.task_vectors import (
    check_weights,
    coefficients_of_task_vectors,
    combination,
    weights_and_sum,
)


@fused
def _average(entries: Entries, weights: Tensor, *, normalize: bool) -> Tensor:
    count = len(entries.models)
    if entries.dtype.itemsize == 2:
        mixed = combination(entries, weights)
        return mixed * weights[count + 1] if normalize else mixed
    mixed = entries.models[0] * weights[0]
    for k, model in enumerate(entries.models[1:], 1):  # mergekit's sum is one of fused multiply-adds
        mixed = multiply_add(model, weights[k], mixed)
    return mixed / weights[count] if normalize else mixed


def coefficients(count: int, *, weight: Sequence[float], normalize: bool) -> tuple[float, list[float]]:
    """Of the base and of the task vectors: the sum of the weights, or 1, and each weight's share of it."""
    _, shares = coefficients_of_task_vectors(count, weight=weight, normalize=normalize)
    return (1.0 if normalize else sum(weight)), shares


@linear_in_task_vectors(coefficients)
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

    For 16-bit floats the sum is multiplied by the reciprocal of sum_k w_k; mergekit divides, which may differ in the
    last place.
    """
    check_weights(weight, models, normalize)
    weights = weights_and_sum(list(map(float, weight)), torch.float32)
    return _average(None, models, weights, normalize=normalize, bounded=True, out=out)
