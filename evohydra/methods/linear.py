"""Weighted average of models (Model Soups, arXiv 2203.05482)."""

from collections.abc import Sequence

from torch import Tensor

from evohydra.methods import elementwise
from evohydra.methods.task_vectors import weighted_sum


@elementwise
def linear(base: Tensor | None, models: Sequence[Tensor], *, weight: Sequence[float], normalize: bool = True) -> Tensor:
    """sum_k w_k theta_k, over sum_k w_k where `normalize`. The base takes no part."""
    return weighted_sum(models, weight, normalize)
