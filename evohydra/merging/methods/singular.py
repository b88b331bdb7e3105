"""Singular values and polar factors of task matrices, for methods that merge in their singular vectors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.arithmetic import wide
from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.methods.requirements import need_base


@fused
def base_plus(entries: Entries, scaling: Tensor) -> Tensor:
    """theta_base + scaling * delta, the first of the extras."""
    return entries.base + scaling * wide(entries.extras[0])


def task_matrices(base: Tensor | None, models: Sequence[Tensor]) -> list[Tensor]:
    """theta_k - theta_base, float32 (float64 for float64), not rounded.

    They lie row by row in memory: the sums of BLAS depend on it.
    """
    origin = wide(need_base(base))
    return [(wide(model) - origin).contiguous() for model in models]


def has_singular_vectors(x: Tensor) -> bool:
    """Whether `x` is a matrix; other tensors have none, and the papers average them."""
    return x.dim() == 2 and x.numel() > 0


def svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (m, r), s (r,), V^T (r, n) of `x` (m, n), r = min(m, n).

    Singular values that are rounding errors, and their vectors, are 0: those vectors could be any, and methods that
    give all directions the same strength would amplify noise.
    """
    try:
        u, s, vt = torch.linalg.svd(x, full_matrices=False)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # float32 does not converge on some matrices of full rank
        u, s, vt = (part.to(x.dtype) for part in torch.linalg.svd(x.double(), full_matrices=False))
    kept = s > s[:1] * max(x.shape) * torch.finfo(x.dtype).eps
    return u * kept, s * kept, vt * kept.unsqueeze(-1)


def polar(x: Tensor) -> Tensor:
    """P Q^T of x = P S Q^T, (m, n): orthonormal columns (or rows) that are the closest to those of `x`.

    The partial isometry where `x` has not full rank: directions that it lacks are not invented.
    """
    p, _, qt = svd(x)
    return p @ qt
