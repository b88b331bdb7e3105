"""DARE: drop entries of the task vectors at random and rescale the rest (arXiv 2311.03099, equations 1 and 2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.methods.sign_election import elect_and_sum
from evohydra.methods.task_vectors import add_scaled, task_vectors, weighted_sum

RESCALES = ("none", "density", "l1")


def drop(delta: Tensor, density: float, uniform: Tensor, rescale: str) -> Tensor:
    """`delta` where `uniform` < density, else 0, rescaled.

    `density`: by 1 / density, as in the paper; `l1`: to the L1 norm that `delta` had, as mergekit does; `none`.
    A density of 0, or a mask that keeps nothing, gives zeros.
    """
    if not 0.0 <= density <= 1.0:
        raise ValueError(f"density must lie in [0, 1], got {density}")
    if rescale not in RESCALES:
        raise ValueError(f"rescale must be one of {', '.join(RESCALES)}, got {rescale!r}")
    kept = delta * (uniform < density)
    if rescale == "none" or density == 0.0:
        return kept
    if rescale == "density":
        return kept.div_(density)
    # float64 sums are the same whatever the number of threads.
    after = kept.abs().sum(dtype=torch.float64).item()
    return kept.mul_(delta.abs().sum(dtype=torch.float64).item() / after) if after > 0 else kept


def dare_linear(
    base: Tensor,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    uniforms: Sequence[Tensor],
    rescale: str = "density",
    normalize: bool = False,
    scaling: float = 1.0,
) -> Tensor:
    """DARE before task arithmetic."""
    dropped = _drop_all(base, models, density, uniforms, rescale)
    return add_scaled(base, weighted_sum(dropped, weight, normalize), scaling)


def dare_ties(
    base: Tensor,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    uniforms: Sequence[Tensor],
    rescale: str = "density",
    normalize: bool = False,
    scaling: float = 1.0,
) -> Tensor:
    """DARE before sign election, DARE's mask in place of TIES' trimming: the method of the paper's EvoLLM-JP."""
    dropped = _drop_all(base, models, density, uniforms, rescale)
    return add_scaled(base, elect_and_sum(dropped, weight, normalize), scaling)


def _drop_all(
    base: Tensor, models: Sequence[Tensor], density: Sequence[float], uniforms: Sequence[Tensor], rescale: str
) -> list[Tensor]:
    deltas = task_vectors(base, models)
    return [drop(delta, p, u, rescale) for delta, p, u in zip(deltas, density, uniforms, strict=True)]
