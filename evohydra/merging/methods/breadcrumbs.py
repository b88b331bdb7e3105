"""Model Breadcrumbs: leave out the largest and the smallest entries of task vectors (arXiv 2312.06795, section 3)."""

from collections.abc import Sequence

from torch import Tensor

from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.kernels.ranking import Ranking
from evohydra.merging.methods import once
from evohydra.merging.methods.mixing import Mix, mix, mixed
from evohydra.merging.methods.requirements import need_base
from evohydra.merging.methods.trimming import at_most, check_shares, keep, magnitudes, more_than, rankings, restored


@fused
def _breadcrumbs(
    entries: Entries,
    weights: Tensor,
    scaling: Tensor,
    least: Tensor,
    most: Tensor,
    factor: Tensor,
    *,
    rescaled: bool,
    **how: bool,
) -> Tensor:
    trimmed = []
    for k, delta in enumerate(entries.task_vectors()):
        size = delta.abs()
        kept = keep(delta, (size >= least[k]) & (size <= most[k]))
        trimmed.append(entries.rounded(kept * factor[k]) if rescaled else kept)
    return mixed(entries, trimmed, weights, scaling, **how)


def _merge(
    base: Tensor | None,
    models: Sequence[Tensor],
    density: Sequence[float],
    gamma: Sequence[float],
    rescale: str,
    ranks: Sequence[Ranking],
    how: Mix,
    out: Tensor | None,
) -> Tensor:
    check_shares("density", density, models)
    check_shares("gamma", gamma, models)
    lows, highs = [], []
    for model, share, outliers, rank in zip(models, density, gamma, ranks, strict=True):
        kept = int(share * rank.size)
        # Fewer outliers are left out where the density asks for them.
        smallest = max(0, rank.size - kept - int(outliers * rank.size))
        values = magnitudes(base, model)
        lows.append(rank.smallest(smallest, values))
        highs.append(rank.smallest(smallest + kept, values))
    least, most = more_than(lows, models[0].dtype), at_most(highs, models[0].dtype)
    numbers = (*how.numbers, least, most, restored(base, models, density, rescale, least, most))
    return _breadcrumbs(need_base(base), models, *numbers, out=out, rescaled=rescale != "none", **how.flags)


@once(ranks=rankings)
def breadcrumbs(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    gamma: Sequence[float],
    normalize: bool = False,
    scaling: float = 1.0,
    rescale: str = "none",
    ranks: Sequence[Ranking] = (),
    out: Tensor | None = None,
) -> Tensor:
    """Task arithmetic over task vectors without their int(gamma * n) largest entries and without the smallest.

    int(density * n) entries stay, of equal magnitudes the first are taken for smaller; in tensors of fewer than
    1 / gamma entries nothing counts as too large. With `rescale` "l1" each task vector then has the L1 norm from
    before, as in mergekit's `rescale`.
    """
    how = mix(weight, models, elect=False, normalize=normalize, scaling=scaling)
    return _merge(base, models, density, gamma, rescale, ranks, how, out)


@once(ranks=rankings)
def breadcrumbs_ties(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    gamma: Sequence[float],
    normalize: bool = False,
    scaling: float = 1.0,
    rescale: str = "none",
    ranks: Sequence[Ranking] = (),
    out: Tensor | None = None,
) -> Tensor:
    """The same before sign election."""
    how = mix(weight, models, elect=True, normalize=normalize, scaling=scaling)
    return _merge(base, models, density, gamma, rescale, ranks, how, out)
