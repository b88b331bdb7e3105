"""DELLA: drop entries of the task vectors at random, large ones less often (MAGPRUNE, arXiv 2406.11617, section 3.1).

The chance that an entry stays grows with its rank by magnitude in its row, from density - epsilon to density + epsilon.
The paper divides each entry by its own chance; mergekit restores the L1 norm of the tensor, and so do we.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.kernels.randomness import STEPS, keys, random_words, scattered, threshold
from evohydra.merging.methods import once
from evohydra.merging.methods.dropping import KeptNorm, check_rescale, drop, factors, kept_norm
from evohydra.merging.methods.mixing import Mix, mix, mixed
from evohydra.merging.methods.requirements import need_base
from evohydra.merging.methods.trimming import check_shares

BLOCK = 2**22  # entries whose rows are sorted at a time
MIDDLE = 127  # ranks are kept as 0 to 2 * MIDDLE, in a byte


@fused
def _della(
    entries: Entries,
    weights: Tensor,
    scaling: Tensor,
    key: Tensor,
    odd: Tensor,
    below: Tensor,
    slope: Tensor,
    factor: Tensor,
    **how: bool,
) -> Tensor:
    scatter = scattered(entries.positions())
    dropped = []
    for k, delta in enumerate(entries.task_vectors()):
        offset = ((entries.extras[k].to(torch.int32) - MIDDLE) * slope[k]) >> 8
        kept = (random_words(scatter, key[k], odd[k]) >> 16) < below[k] + offset
        dropped.append(drop(entries, delta, kept, factor[k]))
    return mixed(entries, dropped, weights, scaling, **how)


def _slope(epsilon: float) -> int:
    """How much a rank adds to the threshold of random bits, times 2^8."""
    return round(epsilon * STEPS * 2**8 / MIDDLE)


def row_ranks(base: Tensor | None, models: Sequence[Tensor]) -> list[Tensor]:
    """The rank of each entry by magnitude in its row, from 0 to 2 * MIDDLE, uint8; a provider for `once`.

    A vector is one row, and ranks go along the second dimension of what has more than two, as in mergekit. In rows of
    one entry, where mergekit fails, it has the middle rank: it stays with a chance of density.
    """
    return [_ranked(model, need_base(base)) for model in models]


def _ranked(model: Tensor, base: Tensor) -> Tensor:
    whole = (1, model.numel()) if model.ndim < 2 else model.shape
    width = whole[1]
    scaled = (torch.arange(width, device=model.device) * (2 * MIDDLE) / max(1, width - 1)).round().to(torch.uint8)
    if width == 1:
        scaled.fill_(MIDDLE)
    scaled = scaled.view(1, width, *[1] * (len(whole) - 2))
    ranks = torch.empty(whole, dtype=torch.uint8, device=model.device)
    step = max(1, BLOCK // max(1, math.prod(whole[1:])))
    for top in range(0, whole[0], step):
        part = slice(top, top + step)
        order = (model.reshape(whole)[part] - base.reshape(whole)[part]).abs().argsort(dim=1, stable=True)
        ranks[part].scatter_(1, order, scaled.expand_as(order))
    return ranks.reshape(model.shape)


def kept_norms(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    streams: Sequence[int],
    rescale: str,
    epsilon: Sequence[float],
    ranks: Sequence[Tensor],
) -> list[KeptNorm]:
    """The norms that masks keep, where they are asked for: a provider for `once`."""
    if rescale != "l1":
        return []
    tables = []
    for model, stream, wide, rank in zip(models, streams, epsilon, ranks, strict=True):
        # A wider epsilon is for a density of 0 or 1, where no norm is asked for; any other is refused later on.
        flat, slope = rank.reshape(-1).cpu(), _slope(wide) if 0 <= wide < 0.5 else 0

        def offsets(start: int, stop: int, flat: Tensor = flat, slope: int = slope) -> Any:
            return (((flat[start:stop].to(torch.int64) - MIDDLE) * slope) >> 8).numpy()

        tables.append(kept_norm(base, model, stream, offsets))
    return tables


def _merge(
    base: Tensor | None,
    models: Sequence[Tensor],
    density: Sequence[float],
    epsilon: Sequence[float],
    streams: Sequence[int],
    rescale: str,
    ranks: Sequence[Tensor],
    norms: Sequence[KeptNorm],
    how: Mix,
    out: Tensor | None,
) -> Tensor:
    check_shares("density", density, models)
    check_rescale(rescale)
    for share, wide in zip(density, epsilon, strict=True):
        if 0 < share < 1 and not (wide >= 0 and share - wide > 0 and share + wide < 1):
            raise ValueError(f"epsilon must keep density +- epsilon in (0, 1), got epsilon {wide} at density {share}")
    below = [threshold(share) for share in density]
    # All or nothing, whatever the rank.
    slopes = [_slope(wide) if 0 < share < 1 else 0 for share, wide in zip(density, epsilon, strict=True)]
    factor = factors(rescale, density, below, norms, models[0].dtype)
    numbers = (*how.numbers, *keys(streams), below, slopes, factor)
    return _della(need_base(base), models, *numbers, extras=ranks, out=out, **how.flags)


@once(ranks=row_ranks, norms=kept_norms)
def della(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    epsilon: Sequence[float],
    streams: Sequence[int],
    rescale: str = "l1",
    normalize: bool = True,
    scaling: float = 1.0,
    ranks: Sequence[Tensor] = (),
    norms: Sequence[KeptNorm] = (),
    out: Tensor | None = None,
) -> Tensor:
    """MAGPRUNE before sign election (section 3.2)."""
    how = mix(weight, models, elect=True, normalize=normalize, scaling=scaling)
    return _merge(base, models, density, epsilon, streams, rescale, ranks, norms, how, out)


@once(ranks=row_ranks, norms=kept_norms)
def della_linear(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    epsilon: Sequence[float],
    streams: Sequence[int],
    rescale: str = "l1",
    normalize: bool = False,
    scaling: float = 1.0,
    ranks: Sequence[Tensor] = (),
    norms: Sequence[KeptNorm] = (),
    out: Tensor | None = None,
) -> Tensor:
    """MAGPRUNE before task arithmetic."""
    how = mix(weight, models, elect=False, normalize=normalize, scaling=scaling)
    return _merge(base, models, density, epsilon, streams, rescale, ranks, norms, how, out)
