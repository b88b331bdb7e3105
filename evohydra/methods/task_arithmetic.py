"""Task arithmetic (Editing Models with Task Arithmetic, arXiv 2212.04089, section 2)."""

from collections.abc import Sequence

from torch import Tensor

from evohydra.methods import elementwise
from evohydra.methods.fused import Entries, fused
from evohydra.methods.task_vectors import add_to_base, check_weights, need_base, plain_sum, shares


@fused
def _arithmetic(entries: Entries, weights: Tensor, scaling: Tensor, *, normalize: bool, scaled: bool) -> Tensor:
    return add_to_base(entries, plain_sum(entries, entries.task_vectors(), weights, normalize), scaling, scaled)


@elementwise
def task_arithmetic(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    normalize: bool = False,
    scaling: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """theta_base + scaling * sum_k w_k tau_k, the weights divided by their sum where `normalize`."""
    check_weights(weight, models, normalize)
    numbers = (shares(weight, models[0].dtype), [float(scaling)])
    return _arithmetic(need_base(base), models, *numbers, normalize=normalize, scaled=scaling != 1, out=out)
