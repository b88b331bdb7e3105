"""KnOTS: adapters aligned by one singular value decomposition of them all (arXiv 2410.19735, section 4).

Then they are merged by TIES, or by DARE with TIES' election of signs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.ranking import Ranking
from evohydra.merging.methods import once
from evohydra.merging.methods.aligned import (
    NOT_ALIGNED,
    Aligned,
    dare_ties_in,
    directions,
    exact_matrices,
    kept,
    ranked,
    ties_in,
)
from evohydra.merging.methods.dropping import KeptNorm
from evohydra.merging.methods.requirements import need_models
from evohydra.merging.methods.singular import has_singular_vectors


def in_shared_basis(base: Tensor | None, models: Sequence[Tensor]) -> Aligned:
    """U, and Sigma V_k of each model, where [Delta_1 ... Delta_K] = U Sigma [V_1 ... V_K]; others as they are."""
    need_models("knots", models, 1)
    vectors = exact_matrices(base, models)
    if not has_singular_vectors(vectors[0]):
        return Aligned(None, tuple(vectors), None)
    left = directions(torch.cat(vectors, dim=1), models)  # (m, r)
    return Aligned(left, tuple(left.T @ vector for vector in vectors), None)


@once(aligned=in_shared_basis, ranks=ranked)
def knots(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    normalize: bool = True,
    scaling: float = 1.0,
    aligned: Aligned = NOT_ALIGNED,
    ranks: Sequence[Ranking] = (),
    out: Tensor | None = None,
) -> Tensor:
    """theta_base + scaling * U TIES(Sigma V_1, ..., Sigma V_K): the paper's KnOTS-TIES.

    The parts are Sigma V_k, as in the released code (the paper writes V_k); they are trimmed tensor by tensor. Tensors
    that are no matrices are merged by TIES as they are. Sums of the parts are sums of the task matrices: with a linear
    method instead of TIES this would be task arithmetic.
    """
    return ties_in(aligned, base, models, weight, density, normalize, scaling, ranks, out)


@once(aligned=in_shared_basis, norms=kept)
def knots_dare_ties(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    streams: Sequence[int],
    rescale: str = "density",
    normalize: bool = True,
    scaling: float = 1.0,
    aligned: Aligned = NOT_ALIGNED,
    norms: Sequence[KeptNorm] = (),
    out: Tensor | None = None,
) -> Tensor:
    """theta_base + scaling * U DARE-TIES(Sigma V_1, ..., Sigma V_K): the paper's KnOTS-DARE-TIES.

    Each entry of a part Sigma V_k is kept with the probability `density`, and multiplied by 1 / density as in the
    paper's code (`rescale`, see `dare_ties`). Masks are drawn anew for each part: by place in it, not in the weights.
    Tensors that are no matrices are merged by DARE-TIES as they are.
    """
    return dare_ties_in(aligned, base, models, weight, density, streams, rescale, normalize, scaling, norms, out)
