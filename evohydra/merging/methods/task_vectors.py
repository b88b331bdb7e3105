"""Task vectors and their weighted sums (Editing Models with Task Arithmetic, arXiv 2212.04089)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.arithmetic import stored
from evohydra.merging.kernels.fused import Entries
from evohydra.merging.methods.requirements import need_base


def task_vectors(base: Tensor | None, models: Sequence[Tensor]) -> list[Tensor]:
    """tau_k = theta_k - theta_base (section 2), in the type of the models; ValueError without a base."""
    origin = need_base(base)
    return [model - origin for model in models]


def coefficients_of_task_vectors(
    count: int, *, weight: Sequence[float], normalize: bool, scaling: float = 1.0
) -> tuple[float, list[float]]:
    """1, and scaling * w_k, divided by sum_k w_k where `normalize`: see `linear_in_task_vectors`."""
    check_weights(weight, range(count), normalize)
    whole = sum(weight) if normalize else 1.0
    return 1.0, [scaling * value / whole for value in weight]


def check_weights(weight: Sequence[float], models: Sequence[object], normalize: bool) -> None:
    """ValueError unless there is a finite weight for each model, with a sum that is not 0 where it is divided by."""
    if len(weight) != len(models):
        raise ValueError(f"expected a weight for each of {len(models)} models, got {list(weight)}")
    if not all(abs(value) < float("inf") for value in weight):
        raise ValueError(f"expected finite weights, got {list(weight)}")
    if normalize and abs(sum(weight)) < 1e-8:
        raise ValueError(f"cannot normalize weights that sum to 0: {list(weight)}")


def total(terms: Sequence[Tensor]) -> Tensor:
    """The sum of all terms, in their order."""
    result = terms[0]
    for term in terms[1:]:
        result = result + term
    return result


def weights_and_sum(weight: Sequence[float], dtype: torch.dtype) -> list[float]:
    """The weights, then their sum, rounded, and its reciprocal: as `plain_sum` takes them."""
    whole = stored([sum(weight)], dtype)[0]
    return [*weight, whole, 1 / whole if whole else 1.0]


def weighted(entries: Entries, deltas: Sequence[Tensor], weight: Tensor) -> list[Tensor]:
    """w_k tau_k, rounded."""
    return [entries.rounded(delta * weight[k]) for k, delta in enumerate(deltas)]


def divided(entries: Entries, x: Tensor, divisor: Tensor) -> Tensor:
    """`x` / divisor[0], rounded; divisor[1] is its reciprocal.

    Where both have at most 11 bits, as 16-bit floats do, the product with the reciprocal rounds to the same number.
    """
    return entries.rounded(x * divisor[1] if entries.dtype.itemsize == 2 else x / divisor[0])


def plain_sum(entries: Entries, deltas: Sequence[Tensor], weights: Tensor, normalize: bool) -> Tensor:
    """sum_k w_k tau_k, divided by sum_k w_k where `normalize`; `weights` as from `weights_and_sum`."""
    mixed = entries.rounded(total(weighted(entries, deltas, weights)))
    return divided(entries, mixed, weights[len(deltas) :]) if normalize else mixed


def combination(entries: Entries, coefficients: Tensor) -> Tensor:
    """sum_k c_k theta_k, rounded once, at its end."""
    return total([model * coefficients[k] for k, model in enumerate(entries.models)])
