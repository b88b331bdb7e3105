"""Consensus merging with TALL masks: keep what several models need (Localizing Task Information, arXiv 2405.07813)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.methods import elementwise
from evohydra.merging.methods.requirements import need_at_least, need_base, need_models


@fused
def _consensus(entries: Entries, threshold: Tensor, agree: Tensor, scaling: Tensor) -> Tensor:
    vectors = entries.task_vectors()
    total = vectors[0]
    for vector in vectors[1:]:
        total = total + vector
    votes = torch.zeros_like(total)
    for k, vector in enumerate(vectors):
        votes = votes + (vector.abs() >= threshold[k] * (total - vector).abs()).to(total.dtype)
    return entries.base + scaling * (total * (votes >= agree))


@elementwise
def consensus(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    threshold: Sequence[float],
    scaling: float = 1.0,
    agree: int = 2,
    out: Tensor | None = None,
) -> Tensor:
    """theta_base + scaling * tau_MTL where at least `agree` models have it in their mask, tau_MTL = sum_k tau_k.

    A model's TALL mask is |tau_k| >= threshold_k * |tau_MTL - tau_k|: the paper's m_t with its lambda_t, and its
    consensus mask with k = `agree`. Thresholds are not negative; with all 0 this is task arithmetic.
    """
    need_models("consensus", models, 1)
    for k, value in enumerate(threshold):
        need_at_least(f"threshold of model {k + 1}", value, 0.0)
    if not 1 <= agree <= len(models):
        raise ValueError(f"agree: expected a number of models from 1 to {len(models)}, got {agree}")
    return _consensus(need_base(base), models, [float(x) for x in threshold], [float(agree)], [float(scaling)], out=out)
