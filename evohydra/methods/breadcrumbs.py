"""Model Breadcrumbs: leave out the largest and the smallest entries of task vectors (arXiv 2312.06795, section 3)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from evohydra.methods import once
from evohydra.methods.fused import Entries, fused
from evohydra.methods.ranking import Ranking
from evohydra.methods.sign_election import elected_sum
from evohydra.methods.sign_election import shares as agreeing_shares
from evohydra.methods.task_vectors import add_to_base, check_weights, need_base, plain_sum, shares
from evohydra.methods.trimming import at_most, check_shares, keep, magnitudes, more_than, rankings


@fused
def _breadcrumbs(
    entries: Entries,
    weights: Tensor,
    least: Tensor,
    most: Tensor,
    scaling: Tensor,
    *,
    elect: bool,
    normalize: bool,
    scaled: bool,
) -> Tensor:
    trimmed = []
    for k, delta in enumerate(entries.task_vectors()):
        size = delta.abs()
        trimmed.append(keep(delta, (size >= least[k]) & (size <= most[k])))
    mix = elected_sum if elect else plain_sum
    return add_to_base(entries, mix(entries, trimmed, weights, normalize), scaling, scaled)


def _merge(
    base: Tensor | None,
    models: Sequence[Tensor],
    weight: Sequence[float],
    density: Sequence[float],
    gamma: Sequence[float],
    scaling: float,
    ranks: Sequence[Ranking],
    **how: Any,
) -> Tensor:
    check_weights(weight, models, how["normalize"] and not how["elect"])
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
    rounded = (agreeing_shares if how["elect"] else shares)(weight, models[0].dtype)
    numbers = (rounded, more_than(lows), at_most(highs), [float(scaling)])
    return _breadcrumbs(need_base(base), models, *numbers, scaled=scaling != 1, **how)


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
    ranks: Sequence[Ranking] = (),
    out: Tensor | None = None,
) -> Tensor:
    """Task arithmetic over task vectors without their int(gamma * n) largest entries and without the smallest.

    int(density * n) entries stay, of equal magnitudes the first are taken for smaller; in tensors of fewer than
    1 / gamma entries nothing counts as too large.
    """
    how = {"elect": False, "normalize": normalize, "out": out}
    return _merge(base, models, weight, density, gamma, scaling, ranks, **how)


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
    ranks: Sequence[Ranking] = (),
    out: Tensor | None = None,
) -> Tensor:
    """The same before sign election."""
    how = {"elect": True, "normalize": normalize, "out": out}
    return _merge(base, models, weight, density, gamma, scaling, ranks, **how)
