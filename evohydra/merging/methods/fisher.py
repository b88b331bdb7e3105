"""Fisher merging: sources weigh what their own likelihood depends on (Matena and Raffel, arXiv 2111.09832)."""

from collections.abc import Sequence

from torch import Tensor

from evohydra.merging.methods import reads
from evohydra.merging.methods.input_weights import average, average_by_importance, check_shares, only_one


@reads("gradient_squares")
def fisher(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    statistics: Sequence[Tensor | None],
    weight: Sequence[float],
) -> Tensor:
    """sum_k w_k F_k theta_k / sum_k w_k F_k, entry by entry (equation 1, with the weights of section 3.2).

    `statistics` are the diagonals F_k of the Fisher information of source k, of the tensor's shape, or None: the mean
    over texts of the squared gradient of log p(reference | prompt). The paper takes the expectation over the model's
    own answers where that is possible (equation 3); here the references stand for them. All tensors have some,
    embeddings and norms too. Where no source has any, the weighted average stays. ValueError for weights below 0 and
    for weights that sum to 0.
    """
    check_shares(weight, models)
    if (alone := only_one(models, weight)) is not None:
        return alone
    diagonals = [each for each in statistics if each is not None]
    if len(diagonals) < len(models):
        return average(models, weight)
    return average_by_importance(models, diagonals, weight)
