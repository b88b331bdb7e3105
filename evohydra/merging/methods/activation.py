"""Averages in which the inputs of a source's linear layers weigh its columns: RegMean without correlations."""

from collections.abc import Sequence

from torch import Tensor

from evohydra.merging.methods import reads
from evohydra.merging.methods.input_weights import average, average_by_importance, check_shares, only_one


@reads("input_squares")
def activation(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    statistics: Sequence[Tensor | None],
    weight: Sequence[float],
) -> Tensor:
    """sum_k w_k s_k theta_k / sum_k w_k s_k for each column of linear layers; a weighted average of other tensors.

    `statistics` are s_k, the mean squares of the inputs of source k's layer, (n,), or None. This is RegMean with alpha
    0 (arXiv 2212.09849, equation 2), the minimum of sum_k w_k |X_k (W - W_k)^T|^2 for inputs that are not correlated.
    Columns that no source reads get the weighted average. ValueError for weights below 0 and for weights that sum to 0.
    """
    check_shares(weight, models)
    if (alone := only_one(models, weight)) is not None:
        return alone
    squares = [each for each in statistics if each is not None]
    if len(squares) < len(models):
        return average(models, weight)
    return average_by_importance(models, squares, weight)
