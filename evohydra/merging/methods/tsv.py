"""TSV-Merge: decorrelate the leading singular vectors of task matrices (Task Singular Vectors, arXiv 2412.00081)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.methods import once
from evohydra.merging.methods.requirements import need_base, need_models
from evohydra.merging.methods.singular import base_plus, has_singular_vectors, polar, svd, task_matrices


def merged(base: Tensor | None, models: Sequence[Tensor], *, share: float) -> Tensor:
    """The merged task vector before its scaling, of the shape and type of the models."""
    need_models("tsv_m", models, 1)
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share: expected a number above 0 and up to 1, got {share}")
    vectors = task_matrices(base, models)
    if not has_singular_vectors(vectors[0]):
        return (sum(vectors[1:], start=vectors[0]) / len(vectors)).to(models[0].dtype)
    count = max(1, int(min(vectors[0].shape) * share / len(vectors)))
    factors = [tuple(x.clone() for x in (u[:, :count], s[:count], vt[:count])) for u, s, vt in map(svd, vectors)]
    left = polar(torch.cat([u for u, _, _ in factors], dim=1))  # (m, models * count)
    right = polar(torch.cat([vt for _, _, vt in factors], dim=0))  # (models * count, n)
    strength = torch.cat([s for _, s, _ in factors])
    return ((left * strength) @ right).to(models[0].dtype)


@once(delta=merged)
def tsv_m(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    delta: Tensor,
    scaling: float = 1.0,
    share: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """theta_base + scaling * U S V^T: the paper's TSV-Merge, with its alpha = `scaling`.

    Of each of T task matrices the `share` / T largest singular components are kept (the paper: 1 / T), at least one.
    Their vectors stand side by side in U and in V, which are replaced by their polar factors. Tensors that are no
    matrices get the mean of the task vectors. Components that are 0 take no part (see `singular`), which differs from
    the paper's code for matrices that have not full rank.
    """
    return base_plus(need_base(base), models, [float(scaling)], extras=[delta], out=out)
