"""TIES-Merging: trim, elect signs, merge what agrees (arXiv 2306.01708, algorithm 1)."""

from collections.abc import Sequence

from torch import Tensor

from evohydra.methods.sign_election import elect_and_sum
from evohydra.methods.task_vectors import add_scaled, task_vectors
from evohydra.methods.trimming import Cut, trim


def ties(
    base: Tensor,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    cuts: Sequence[Cut],
    normalize: bool = True,
    scaling: float = 1.0,
) -> Tensor:
    """theta_base + scaling * the elected sum of task vectors, each trimmed to `density` of its entries.

    `cuts` hold what the densities mean for these tensors, so that magnitudes are sorted once and not for each genome.
    """
    trimmed = [trim(delta, at) for delta, at in zip(task_vectors(base, models), cuts, strict=True)]
    return add_scaled(base, elect_and_sum(trimmed, weight, normalize), scaling)
