"""RegMean and RegMean++: linear layers whose outputs are nearest to all sources' (arXiv 2212.09849, 2508.03121)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.methods import reads
from evohydra.merging.methods.input_weights import average, check_shares, only_one
from evohydra.merging.methods.task_vectors import total

RIDGE = 2.0**-23  # of the trace: twice what rounding sums to float32 can take from an eigenvalue


@reads("inputs")
def regmean(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    statistics: Sequence[Tensor | None],
    weight: Sequence[float],
    alpha: float = 0.9,
) -> Tensor:
    """W^T = (sum_k w_k G_k)^-1 sum_k w_k G_k W_k^T of linear layers W_k, (m, n); a weighted average of other tensors.

    `statistics` are G_k = X_k^T X_k of the inputs X_k of source k's layer, (n, n), divided by their number (equation 2
    of arXiv 2212.09849), or None. Off the diagonal they are multiplied by `alpha` (section 4.2): 1 is the minimum of
    sum_k w_k |X_k (W - W_k)^T|^2, 0 weighs each input channel by its mean square. The paper has alpha 0.9 (0.1 for T5)
    and no weights. Added is the penalty r |W - A|^2, with A the weighted average and r RIDGE times the
    trace: of inputs that never occur, and in directions that no text has, the average stays, and the matrix stays
    positive definite although G_k are float32. Computed in float64.
    ValueError for weights below 0 and for weights that sum to 0.
    """
    return _regression(models, statistics, weight, alpha)


@reads("merged_inputs")
def regmean_plus_plus(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    statistics: Sequence[Tensor | None],
    weight: Sequence[float],
    alpha: float = 0.9,
) -> Tensor:
    """As `regmean`, with inputs that come out of the merged layers before (section 3 of arXiv 2508.03121).

    In layer l the inputs X_k of source k's linear layers are what its own layer makes of the hidden states behind the
    merged layers before l. Those depend on the genome. Here they are gathered once, behind the merge at the method's
    usual values: for that merge this is RegMean++, for others an approximation.
    """
    return _regression(models, statistics, weight, alpha)


def _regression(
    models: Sequence[Tensor],
    statistics: Sequence[Tensor | None],
    weight: Sequence[float],
    alpha: float,
) -> Tensor:
    check_shares(weight, models)
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha: expected a share from 0 to 1, got {alpha}")
    grams = [gram.double() for gram in statistics if gram is not None]
    if (alone := only_one(models, weight)) is not None:
        return alone
    middle = average(models, weight)
    if len(grams) < len(models):
        return middle
    scaled = [_off_diagonal(gram, alpha) * value for gram, value in zip(grams, weight, strict=True)]
    whole = total(scaled)
    ridge = RIDGE * float(whole.trace())
    if not ridge:  # no text has any input here
        return middle
    exact = total([value * model.double() for value, model in zip(weight, models, strict=True)]) / sum(weight)
    pull = total([gram @ (model.double() - exact).T for gram, model in zip(scaled, models, strict=True)])
    whole.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(whole)
    if int(failed):
        raise ArithmeticError(f"the sums of inputs, ({len(whole)}, {len(whole)}), are not positive definite")
    return (exact + torch.cholesky_solve(pull, factor).T).to(models[0].dtype)


def _off_diagonal(gram: Tensor, alpha: float) -> Tensor:
    """`gram`, (n, n), multiplied by `alpha` off its diagonal, as another tensor."""
    return alpha * gram + (1 - alpha) * torch.diag(gram.diagonal())
