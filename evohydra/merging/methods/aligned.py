"""TIES and DARE-TIES on task matrices in bases that the tasks share, for methods that align adapters first."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from evohydra.merging.kernels.ranking import Ranking
from evohydra.merging.methods.dare import dare_ties, kept_norms
from evohydra.merging.methods.dropping import KeptNorm
from evohydra.merging.methods.requirements import need_base
from evohydra.merging.methods.singular import base_plus, svd, task_matrices
from evohydra.merging.methods.ties import ties
from evohydra.merging.methods.trimming import rankings


class Aligned(NamedTuple):
    """Task matrices Delta_k = left @ part_k @ right; without a basis on a side, that side is as it was.

    left (m, p) has orthonormal columns, right (q, n) orthonormal rows. All are float64: bases that are found in float32
    would be off by more than the roundings of a merge.
    """

    left: Tensor | None
    parts: tuple[Tensor, ...]
    right: Tensor | None


NOT_ALIGNED = Aligned(None, (), None)  # what stands for the result of a provider that has not been called


def exact_matrices(base: Tensor | None, models: Sequence[Tensor]) -> list[Tensor]:
    """theta_k - theta_base in float64."""
    return [matrix.double() for matrix in task_matrices(base, models)]


def directions(x: Tensor, models: Sequence[Tensor]) -> Tensor:
    """An orthonormal basis of the columns of `x` (m, n), (m, r), the strongest first; one of zeros where x is 0.

    `x` are task matrices of `models`, whose roundings have singular values too: adapters of small rank would seem to
    have full rank, and trimming would count entries that are noise. What is not above these is left out.
    """
    u, s, _ = svd(x)
    return u[:, : max(1, int((s > noise(models, x.shape)).sum()))].contiguous()


def noise(models: Sequence[Tensor], shape: Sequence[int]) -> float:
    """A bound for the singular values of a matrix of roundings of the models' entries.

    Roundings are up to eps / 2 of an entry, with a standard deviation of eps / 2 / sqrt(3); the largest singular value
    of m x n independent numbers is about sqrt(m) + sqrt(n) standard deviations.
    """
    peak = max((float(model.abs().max()) for model in models), default=0.0)
    return 0.5 * _eps(models) * peak * (math.sqrt(shape[0]) + math.sqrt(shape[1]))


def _eps(models: Sequence[Tensor]) -> float:
    """Of the type to which the models were rounded before they were converted to that of the merge."""
    for dtype in (torch.bfloat16, torch.float16):
        if all(torch.equal(model, model.to(dtype).to(model.dtype)) for model in models):
            return torch.finfo(dtype).eps
    stored = all(torch.equal(model, model.float().to(model.dtype)) for model in models)
    return torch.finfo(torch.float32 if stored else models[0].dtype).eps


def ranked(base: Tensor | None, models: Sequence[Tensor], *, aligned: Aligned) -> list[Ranking]:
    """The order of magnitudes of each part: a provider for `once`."""
    return rankings(torch.zeros_like(aligned.parts[0]), aligned.parts)


def ties_in(
    aligned: Aligned,
    base: Tensor | None,
    models: Sequence[Tensor],
    weight: Sequence[float],
    density: Sequence[float],
    normalize: bool,
    scaling: float,
    ranks: Sequence[Ranking],
    out: Tensor | None,
) -> Tensor:
    """theta_base + scaling * left @ TIES(parts) @ right."""
    nothing = torch.zeros_like(aligned.parts[0])
    merged = ties(nothing, aligned.parts, weight=weight, density=density, normalize=normalize, ranks=ranks)
    return _back(aligned, merged, base, models, scaling, out)


def kept(
    base: Tensor | None, models: Sequence[Tensor], *, aligned: Aligned, streams: Sequence[int], rescale: str
) -> list[KeptNorm]:
    """The norms of the parts that masks keep: a provider for `once`."""
    return kept_norms(torch.zeros_like(aligned.parts[0]), aligned.parts, streams=streams, rescale=rescale)


def dare_ties_in(
    aligned: Aligned,
    base: Tensor | None,
    models: Sequence[Tensor],
    weight: Sequence[float],
    density: Sequence[float],
    streams: Sequence[int],
    rescale: str,
    normalize: bool,
    scaling: float,
    norms: Sequence[KeptNorm],
    out: Tensor | None,
) -> Tensor:
    """theta_base + scaling * left @ DARE-TIES(parts) @ right: entries of the parts are dropped, not of the tasks."""
    nothing = torch.zeros_like(aligned.parts[0])
    how = {"weight": weight, "density": density, "streams": streams, "rescale": rescale, "normalize": normalize}
    merged = dare_ties(nothing, aligned.parts, **how, norms=norms)
    return _back(aligned, merged, base, models, scaling, out)


def _back(
    aligned: Aligned, merged: Tensor, base: Tensor | None, models: Sequence[Tensor], scaling: float, out: Tensor | None
) -> Tensor:
    """theta_base + scaling * left @ merged @ right, in the type of the models."""
    merged = merged if aligned.left is None else aligned.left @ merged
    merged = merged if aligned.right is None else merged @ aligned.right
    return base_plus(
        need_base(base), models, [float(scaling)], extras=[merged.to(models[0].dtype).contiguous()], out=out
    )
