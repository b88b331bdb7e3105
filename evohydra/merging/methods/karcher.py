"""The Karcher mean of directions (arXiv 2603.04972): where the weighted sum of the ways to all models is 0.

By the fixed-point iteration of mergekit, rounding included.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.arithmetic import wide
from evohydra.merging.kernels.exact import arccosine, cosine, sine
from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.kernels.lines import dot, norm
from evohydra.merging.methods import once
from evohydra.merging.methods.requirements import need_at_least, need_models, shares


@fused
def _scaled(entries: Entries, scale: Tensor) -> Tensor:
    return wide(entries.extras[0]) * scale


def lengths(base: Tensor | None, models: Sequence[Tensor]) -> tuple[float, ...]:
    """The norm of each model."""
    need_models("karcher", models, 1)
    return tuple(float(norm(model)) for model in models)


@once(length=lengths)
def karcher(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    length: tuple[float, ...],
    max_iter: int = 10,
    tol: float = 1e-5,
    out: Tensor | None = None,
) -> Tensor:
    """The mean direction of the flattened models, as long as the weighted mean of their lengths.

    Weights are divided by their sum; mergekit's are equal. Models no longer than `tol` have no direction; where none
    has one the result is 0. The base takes no part (mergekit counts it as a model where it is listed as one).
    """
    need_models("karcher", models, 1)
    need_at_least("max_iter", max_iter, 0)
    need_at_least("tol", tol, 0.0)
    for k, value in enumerate(weight):
        need_at_least(f"weight of model {k + 1}", value, 0.0)
    if len(models) == 1:
        return _scaled(None, models, [1.0], extras=models, out=out)
    share = shares(weight)
    long = [k for k, each in enumerate(length) if each > tol]
    if not long:
        return _scaled(None, models, [0.0], extras=models[:1], out=out)
    alphas = shares([share[k] for k in long])
    mean = _mean([models[k] / length[k] for k in long], alphas, max_iter, tol)
    lengths_ = torch.tensor(length, dtype=wide(models[0].new_empty(0)).dtype)
    scale = sum(a * each for a, each in zip(share, lengths_, strict=True))
    return _scaled(None, models, [float(torch.as_tensor(scale).to(mean.dtype))], extras=[mean], out=out)


def _mean(units: Sequence[Tensor], alphas: Sequence[float], max_iter: int, tol: float) -> Tensor:
    """The fixed point on the sphere, of the shape and type of each unit vector.

    theta_k is the angle between mean and u_k, and sum_k alpha_k theta_k / sin(theta_k) * (u_k - cos(theta_k) mean) the
    way to go from the mean.
    """
    mean = torch.zeros_like(units[0])
    for alpha, unit in zip(alphas, units, strict=True):
        mean += alpha * unit
    length = norm(mean)
    mean = units[0].clone() if float(length) < tol else mean / length
    for _ in range(max_iter):
        tangent = torch.zeros_like(mean)
        for alpha, unit in zip(alphas, units, strict=True):
            along = dot(mean, unit).clamp(-1.0, 1.0)
            theta = arccosine(along)
            if float(theta) >= tol:
                tangent += alpha * (theta / sine(theta)) * (unit - along * mean)
        turn = norm(tangent)
        if float(turn) < tol:
            break
        # On a CPU mergekit's cosine and sine are rounded before the product, its divisors are not.
        mean = mean * cosine(turn).to(mean.dtype) + (tangent / turn) * sine(turn).to(mean.dtype)
        length = norm(mean)
        if float(length) > tol:
            mean = mean / length
    return mean
