"""The geometric median of the models, by the smoothed Weiszfeld algorithm (RFA, arXiv 1912.13445, algorithm 2)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.kernels.lines import squared_distance
from evohydra.merging.methods import once
from evohydra.merging.methods.requirements import need_at_least, need_models, shares


@fused
def _combined(entries: Entries, factor: Tensor) -> Tensor:
    total = entries.models[0] * factor[0]
    for k in range(1, len(entries.models)):
        total = total + entries.models[k] * factor[k]
    return total


def distances(base: Tensor | None, models: Sequence[Tensor]) -> NDArray[np.float64]:
    """||theta_i - theta_j||^2 of each two models, (models, models)."""
    need_models("geometric_median", models, 1)
    result = np.zeros((len(models), len(models)))
    for i, one in enumerate(models):
        for j in range(i):
            result[i, j] = result[j, i] = squared_distance(one, models[j])
    return result


@once(squared=distances)
def geometric_median(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    squared: NDArray[np.float64],
    max_iter: int = 100,
    nu: float = 1e-6,
    out: Tensor | None = None,
) -> Tensor:
    """The point v that minimizes sum_k w_k ||v - theta_k|| of the flattened tensors. The base takes no part.

    Weiszfeld: v = sum_k b_k theta_k / sum_k b_k, b_k = w_k / max(nu, ||v - theta_k||), from the weighted mean on. Each
    v is sum_k c_k theta_k with sum_k c_k = 1, so that ||v - theta_k||^2 = sum_j c_j D_jk - 1/2 sum_ij c_i c_j D_ij with
    the squared distances D of the models: a genome costs one pass over them.
    """
    need_models("geometric_median", models, 1)
    for k, value in enumerate(weight):
        need_at_least(f"weight of model {k + 1}", value, 0.0)
    need_at_least("max_iter", max_iter, 0)
    if not nu > 0:
        raise ValueError(f"nu: expected a distance above 0, got {nu}")
    weights = share = np.array(shares(weight))
    for _ in range(max_iter):
        # Sums of numpy's own, in one order: those of `@` depend on the processor.
        across = (squared * share).sum(axis=1)
        apart = np.sqrt(np.maximum(across - 0.5 * (across * share).sum(), 0.0))
        pulls = weights / np.maximum(apart, nu)
        before, share = share, pulls / pulls.sum()
        if np.abs(share - before).max() < 1e-12:
            break
    return _combined(None, models, share.tolist(), out=out)
