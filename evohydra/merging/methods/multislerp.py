"""Multi-SLERP: a barycentre on the sphere, in the tangent space at the weighted mean of the directions.

goddard.blog/posts/multislerp-wow-what-a-cool-idea, as mergekit does it, rounding included.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.arithmetic import stored, wide
from evohydra.merging.kernels.exact import added_in_order, cosine, sine
from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.kernels.lines import as_lines, dots, norms
from evohydra.merging.methods import once
from evohydra.merging.methods.requirements import need_models, shares


@fused
def _mapped(entries: Entries, cosine: Tensor, sine: Tensor, length: Tensor) -> Tensor:
    mean, tangent = map(wide, entries.extras)
    point = entries.rounded(entries.rounded(mean * cosine) + entries.rounded(tangent * sine))
    return entries.base + entries.rounded(point * length)


@fused
def _linear(entries: Entries, weight: Tensor) -> Tensor:
    vectors = entries.task_vectors()
    total = entries.rounded(vectors[0] * weight[0])
    for k in range(1, len(vectors)):
        total = entries.rounded(total + entries.rounded(vectors[k] * weight[k]))
    return entries.base + total


def lengths(base: Tensor | None, models: Sequence[Tensor]) -> Tensor:
    """The norm of each model, or of each task vector where there is a base, (models,), in their type."""
    need_models("multislerp", models, 1)
    return torch.cat([norms(as_lines(vector, "whole")) for vector in _vectors(base, models)])


@once(length=lengths)
def multislerp(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    length: Tensor,
    normalize_weights: bool = True,
    eps: float = 1e-8,
    out: Tensor | None = None,
) -> Tensor:
    """The weighted barycentre of the directions, as long as the weighted mean of the lengths.

    With u_k the unit vectors and m = sum_k w_k u_k / |...|: exp_m(sum_k w_k (u_k - <u_k, m> m)). Around the base where
    there is one, else around 0. One model is itself. Where m is 0 two models are averaged linearly, as in mergekit, and
    so are models that are all 0; more are a ValueError.
    """
    need_models("multislerp", models, 1)
    if len(models) == 1:
        return _linear(None, models, [1.0], out=out)
    dtype, eps = models[0].dtype, _positive(eps)
    weights = torch.tensor(list(weight), dtype=dtype)
    if normalize_weights:
        shares(weights.tolist())
        weights = weights / added_in_order(weights)
    factors: list[float] = weights.tolist()
    tiny = stored([eps], dtype)[0]
    scale = length.cpu() + eps
    units = [
        as_lines(vector, "whole") / float(s) if s != 0 else torch.zeros_like(as_lines(vector, "whole"))
        for vector, s in zip(_vectors(base, models), scale, strict=True)
    ]
    mean = _weighted(units, factors)
    mean_length = norms(mean)
    if float(mean_length) < tiny or not mean_length.any():
        if len(models) == 2 or not length.any():
            return _linear(base, models, factors, out=out)
        raise ValueError(f"multislerp: expected directions whose weighted sum is not 0, got 0 with weights {factors}")
    mean = mean / mean_length
    tangent = _weighted([unit - dots(unit, mean) * mean for unit in units], factors)
    angle = norms(tangent).cpu() + eps
    # float16 has no 1e-8: an angle of 0, where mergekit divides 0 by 0.
    sinc = sine(angle) / angle if angle.any() else torch.ones_like(angle)
    norm = added_in_order((length.cpu() * weights).to(torch.float64)).to(dtype)
    numbers = (cosine(angle).tolist(), sinc.tolist(), [float(norm)])
    return _mapped(base, models, *numbers, extras=[mean, tangent], out=out)


def _vectors(base: Tensor | None, models: Sequence[Tensor]) -> list[Tensor]:
    return [model - base for model in models] if base is not None else list(models)


def _weighted(vectors: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
    """sum_k w_k x_k, each product rounded, the sum once."""
    total = wide(vectors[0] * factors[0])
    for vector, factor in zip(vectors[1:], factors[1:], strict=True):
        total = total + vector * factor
    return total.to(vectors[0].dtype)


def _positive(eps: float) -> float:
    if not eps > 0:
        raise ValueError(f"eps: expected a number above 0, got {eps}")
    return eps
