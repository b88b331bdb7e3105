"""Isotropic merging: one strength for all singular directions of the merged task matrix (arXiv 2502.04959)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.methods import once
from evohydra.merging.methods.requirements import need_base, need_models
from evohydra.merging.methods.singular import base_plus, has_singular_vectors, polar, svd, task_matrices


def in_common_subspace(base: Tensor | None, models: Sequence[Tensor]) -> Tensor:
    """Iso-C's task vector before its scaling: mean(s) U V^T of sum_k Delta_k = U diag(s) V^T."""
    need_models("iso_c", models, 1)
    vectors = task_matrices(base, models)
    total = sum(vectors[1:], start=vectors[0])
    if not has_singular_vectors(total):
        return (total / len(vectors)).to(models[0].dtype)
    u, s, vt = svd(total)
    return (s.mean() * (u @ vt)).to(models[0].dtype)


@once(delta=in_common_subspace)
def iso_c(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    delta: Tensor,
    scaling: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """theta_base + scaling * Iso-C's task vector, the paper's alpha = `scaling`.

    Tensors that are no matrices get the mean of the task vectors, as in the paper's code.
    """
    return base_plus(need_base(base), models, [float(scaling)], extras=[delta], out=out)


def in_common_and_task_subspaces(base: Tensor | None, models: Sequence[Tensor], *, common: float) -> Tensor:
    """Iso-CTS's task vector before its scaling (algorithm 1).

    Of r directions the leading k, about `common` r, are those of sum_k Delta_k; each of T models adds the leading
    (r - k) / T of what of its task matrix lies outside the span of these. All are orthogonalized, and the strength of
    each is the mean of all.
    """
    need_models("iso_cts", models, 1)
    if not 0.0 <= common <= 1.0:
        raise ValueError(f"common: expected a share from 0 to 1, got {common}")
    vectors = task_matrices(base, models)
    total = sum(vectors[1:], start=vectors[0])
    if not has_singular_vectors(total):
        return (total / len(vectors)).to(models[0].dtype)
    rank = min(total.shape)
    own = (rank - int(rank * common)) // len(vectors)  # the paper's code rounds this to the nearest number
    u, s, vt = (x.clone() for x in _leading(total, rank - own * len(vectors)))
    parts = [(u, s, vt)]
    if own > 0:
        parts += [_leading(vector - u @ (u.T @ vector), own) for vector in vectors]
    left = polar(torch.cat([part[0] for part in parts], dim=1))  # (m, r)
    right = polar(torch.cat([part[2] for part in parts], dim=0))  # (r, n)
    return (torch.cat([part[1] for part in parts]).mean() * (left @ right)).to(models[0].dtype)


def _leading(x: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vt = svd(x)
    return u[:, :count], s[:count], vt[:count]


@once(delta=in_common_and_task_subspaces)
def iso_cts(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    delta: Tensor,
    scaling: float = 1.0,
    common: float = 0.8,
    out: Tensor | None = None,
) -> Tensor:
    """theta_base + scaling * Iso-CTS's task vector, the paper's alpha = `scaling`; its k / r = `common` is 0.8.

    Tensors that are no matrices get the mean of the task vectors, as in the paper's code.
    """
    return base_plus(need_base(base), models, [float(scaling)], extras=[delta], out=out)
