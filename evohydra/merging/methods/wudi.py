"""WUDI-Merging: the task vector that interferes least with each of its parts (arXiv 2503.08099), in closed form.

SWUDI, a later variant, is not here: no definition of it could be found.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.methods import once
from evohydra.merging.methods.requirements import need_at_least, need_base, need_models
from evohydra.merging.methods.singular import base_plus, has_singular_vectors, task_matrices
from evohydra.merging.methods.task_vectors import total


def interferences(base: Tensor | None, models: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What the sum of the task vectors disturbs, by directions of the inputs; () for what is no matrix.

    With S = sum_k tau_k, w_k = 1 / |tau_k|^2 and the eigenvectors v of A = sum_k w_k tau_k^T tau_k: for each direction
    sum_k w_k (S - tau_k) tau_k^T tau_k v, (m, r), its eigenvalue, (r,), and v itself, (r, n). The first two are divided
    by the largest eigenvalue. Computed in float64.
    """
    need_models("wudi", models, 1)
    vectors = [vector.double() for vector in task_matrices(base, models)]
    if not has_singular_vectors(vectors[0]):
        return ()
    whole = total(vectors)
    lengths = [float(vector.square().sum()) for vector in vectors]
    shares = [1 / length if length > 0 else 0.0 for length in lengths]
    strengths, directions = _row_space(torch.cat([v * share**0.5 for v, share in zip(vectors, shares, strict=True)]))
    felt = total(
        [
            (whole - vector) @ (vector.T @ (vector @ directions.T)) * share
            for vector, share in zip(vectors, shares, strict=True)
        ]
    )
    kind = torch.promote_types(models[0].dtype, torch.float32)
    largest = strengths.amax() if len(strengths) else strengths.sum() + 1
    return tuple(part.to(kind) for part in (felt / largest, strengths / largest, directions))


def _row_space(x: Tensor) -> tuple[Tensor, Tensor]:
    """The squares of the singular values of `x`, (m, n), that are not rounding errors, (r,), and its V^T, (r, n)."""
    tall = x.shape[0] > x.shape[1]
    squares, vectors = torch.linalg.eigh(x.T @ x if tall else x @ x.T)
    kept = squares > squares[-1:] * max(x.shape) * torch.finfo(x.dtype).eps
    squares, vectors = squares[kept], vectors[:, kept]
    return squares, vectors.T if tall else (vectors.T @ x) / squares.sqrt().unsqueeze(-1)


@once(interference=interferences)
def wudi(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    interference: tuple[Tensor, ...],
    scaling: float = 1.0,
    ridge: float = 0.01,
    out: Tensor | None = None,
) -> Tensor:
    """theta_base + scaling * tau_m, where tau_m makes sum_k |(tau_m - tau_k) tau_k^T|^2 / |tau_k|^2 the smallest.

    That is the paper's loss of a linear layer (equation 14). Its minimiser is B A^+ with A = sum_k w_k tau_k^T tau_k
    and B = sum_k w_k tau_k tau_k^T tau_k. The paper starts at S = sum_k tau_k and takes some 300 small steps of Adam,
    which moves only the directions in which the loss is steep. The penalty `ridge` * |tau_m - S|^2, `ridge` relative to
    the largest eigenvalue of A, stands for that here: tau_m = (B + ridge S) (A + ridge)^-1 is the minimiser at 0 and S,
    which is task arithmetic, at infinity. As in the paper's code all matrices are linear layers, embeddings too, and
    other tensors get the mean of the task vectors.
    """
    need_at_least("ridge", ridge, 0.0)
    vectors = task_matrices(base, models)
    delta = total(vectors)
    if interference:
        felt, strengths, directions = interference
        delta = delta - (felt / (strengths + ridge)) @ directions
    else:
        delta = delta / len(vectors)
    return base_plus(need_base(base), models, [float(scaling)], extras=[delta], out=out)
