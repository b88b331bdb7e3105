"""Routers of mixtures of experts, with a row for each model: the expert whose row a state is nearest to answers it.

The factor of a row says how sharp the choice is: with 0 all experts weigh the same, whatever the state.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.exact import added
from evohydra.merging.kernels.randomness import keys, positions_of, random_words, scattered
from evohydra.merging.methods import reads
from evohydra.merging.methods.task_vectors import check_weights


def _router(models: Sequence[Tensor], rows: Sequence[Tensor], weight: Sequence[float]) -> Tensor:
    """Each of the `rows`, (width,), of float64 and length 1, times its weight; (models, width), in the models' type."""
    check_weights(weight, models, normalize=False)
    if models[0].dim() != 2 or len(models[0]) != len(models):
        raise ValueError(f"expected routers with a row for each of {len(models)} models, got {tuple(models[0].shape)}")
    factors = torch.tensor(weight, dtype=torch.float64, device=models[0].device).unsqueeze(1)
    return (torch.stack(list(rows)) * factors).to(models[0].dtype)


def random_router(
    base: Tensor | None, models: Sequence[Tensor], *, weight: Sequence[float], streams: Sequence[int]
) -> Tensor:
    """Row k is w_k r_k / |r_k|, where r_k are hashes of (mask_seed, tensor, model, position), even in (-1, 1).

    As mergekit's `gate_mode: random`, which draws from a normal distribution and leaves the lengths as they come.
    Shapes: (models, width). ValueError for other shapes.
    """
    scatter = scattered(positions_of(0, models[0].shape[-1]))
    drawn = [
        (
            (random_words(scatter, torch.tensor(key, dtype=torch.int32), torch.tensor(odd, dtype=torch.int32)) >> 16)
            + 0.5
        )
        .double()
        .to(models[0].device)
        for key, odd in zip(*keys(streams), strict=True)
    ]
    return _router(models, [row / math.sqrt(float(added((row * row).reshape(1, -1)))) for row in drawn], weight)


@reads("expert_states")
def hidden_router(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    statistics: Sequence[Tensor | None],
    weight: Sequence[float],
) -> Tensor:
    """Row k is w_k s_k, where s_k, (width,), is the direction of states of the base at prompts for expert k.

    As mergekit's `gate_mode: hidden`; what s_k is, `evohydra.scoring.gathering.expert_states` says. Shapes: (models,
    width). ValueError for other shapes. Before a pass has found any s_k, rows are 0.
    """
    nothing = torch.zeros(models[0].shape[-1], device=models[0].device)
    return _router(models, [(nothing if row is None else row).double() for row in statistics], weight)
