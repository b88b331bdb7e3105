"""TIES-Merging: trim, elect signs, merge what agrees (arXiv 2306.01708, algorithm 1)."""

from collections.abc import Sequence

from torch import Tensor

from evohydra.methods import once
from evohydra.methods.fused import Entries, fused
from evohydra.methods.ranking import Ranking
from evohydra.methods.sign_election import elected_sum, shares
from evohydra.methods.task_vectors import add_to_base, check_weights, need_base
from evohydra.methods.trimming import at_least, check_shares, keep, largest, rankings


@fused
def _ties(
    entries: Entries, weights: Tensor, least: Tensor, scaling: Tensor, *, normalize: bool, scaled: bool
) -> Tensor:
    trimmed = [keep(delta, delta.abs() >= least[k]) for k, delta in enumerate(entries.task_vectors())]
    return add_to_base(entries, elected_sum(entries, trimmed, weights, normalize), scaling, scaled)


@once(ranks=rankings)
def ties(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    normalize: bool = True,
    scaling: float = 1.0,
    ranks: Sequence[Ranking] = (),
    out: Tensor | None = None,
) -> Tensor:
    """theta_base + scaling * the elected sum of task vectors, each trimmed to `density` of its entries.

    Exactly max(1, int(density * n)) entries of the n largest stay, of equal magnitudes the first; none at density 0.
    """
    check_weights(weight, models, False)
    check_shares("density", density, models)
    least = at_least(largest(base, models, density, ranks))
    numbers = (shares(weight, models[0].dtype), least, [float(scaling)])
    return _ties(need_base(base), models, *numbers, normalize=normalize, scaled=scaling != 1, out=out)
