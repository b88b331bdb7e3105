"""TIES-Merging: trim, elect signs, merge what agrees (arXiv 2306.01708, algorithm 1)."""

from collections.abc import Sequence

from torch import Tensor

from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.kernels.ranking import Ranking
from evohydra.merging.methods import once
from evohydra.merging.methods.mixing import mix, mixed
from evohydra.merging.methods.requirements import need_base
from evohydra.merging.methods.trimming import at_least, check_shares, keep, largest, rankings, restored


@fused
def _ties(
    entries: Entries, weights: Tensor, scaling: Tensor, least: Tensor, factor: Tensor, *, rescaled: bool, **how: bool
) -> Tensor:
    trimmed = [keep(delta, delta.abs() >= least[k]) for k, delta in enumerate(entries.task_vectors())]
    if rescaled:
        trimmed = [entries.rounded(delta * factor[k]) for k, delta in enumerate(trimmed)]
    return mixed(entries, trimmed, weights, scaling, **how)


@once(ranks=rankings)
def ties(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    normalize: bool = True,
    scaling: float = 1.0,
    rescale: str = "none",
    ranks: Sequence[Ranking] = (),
    out: Tensor | None = None,
) -> Tensor:
    """theta_base + scaling * the elected sum of task vectors, each trimmed to `density` of its entries.

    Exactly max(1, int(density * n)) entries of the n largest stay, of equal magnitudes the first; none at density 0.
    With `rescale` "l1" each task vector then has the L1 norm from before, as in mergekit's `rescale`.
    """
    check_shares("density", density, models)
    how = mix(weight, models, elect=True, normalize=normalize, scaling=scaling)
    least = at_least(largest(base, models, density, ranks), models[0].dtype)
    factor = restored(base, models, density, rescale, least)
    rescaled = rescale != "none"
    return _ties(need_base(base), models, *how.numbers, least, factor, out=out, rescaled=rescaled, **how.flags)
