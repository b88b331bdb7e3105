"""Core Space: adapters in the bases of all their inputs and outputs (arXiv 2509.17786, section 4).

There they are merged by TIES, or by DARE with TIES' election of signs.
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


def in_core_space(base: Tensor | None, models: Sequence[Tensor]) -> Aligned:
    """U, V and the core M_k = U^T Delta_k V of each model, U a basis of all outputs, V of all inputs."""
    need_models("core_space", models, 1)
    vectors = exact_matrices(base, models)
    if not has_singular_vectors(vectors[0]):
        return Aligned(None, tuple(vectors), None)
    left = directions(torch.cat(vectors, dim=1), models)  # (m, r)
    right = directions(torch.cat(vectors).T.contiguous(), models)  # (n, q)
    cores = tuple(left.T @ vector @ right for vector in vectors)
    return Aligned(left, cores, right.T.contiguous())


@once(aligned=in_core_space, ranks=ranked)
def core_space(
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
    """theta_base + scaling * U TIES(M_1, ..., M_K) V^T: nothing of an adapter is lost on the way there and back.

    The paper takes U and V from all factors B_k side by side and A_k one below the other. Here they come from the
    products B_k A_k in the same way, which depend on the model alone: of B_k A_k = (B_k G)(G^-1 A_k) an adapter could
    be either. The spaces are the paper's, the axes in them are those of the products, so that numbers differ from
    those of its code. Tensors that are no matrices are merged by TIES as they are.
    """
    return ties_in(aligned, base, models, weight, density, normalize, scaling, ranks, out)


@once(aligned=in_core_space, norms=kept)
def core_space_dare_ties(
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
    """theta_base + scaling * U DARE-TIES(M_1, ..., M_K) V^T: entries of the small matrices are dropped at random.

    Each entry of M_k is kept with the probability `density`, and multiplied by 1 / density (`rescale`, see
    `dare_ties`). The matrices are as wide as the sum of the ranks: where that is small, few entries decide. Tensors
    that are no matrices are merged by DARE-TIES as they are.
    """
    return dare_ties_in(aligned, base, models, weight, density, streams, rescale, normalize, scaling, norms, out)
