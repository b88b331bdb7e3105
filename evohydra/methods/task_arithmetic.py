"""Task arithmetic (Editing Models with Task Arithmetic, arXiv 2212.04089, section 2)."""

from collections.abc import Sequence

from torch import Tensor

from evohydra.methods import elementwise
from evohydra.methods.task_vectors import add_scaled, task_vectors, weighted_sum


@elementwise
def task_arithmetic(
    base: Tensor, models: Sequence[Tensor], *, weight: Sequence[float], normalize: bool = False, scaling: float = 1.0
) -> Tensor:
    """theta_base + scaling * sum_k w_k tau_k, the weights divided by their sum where `normalize`."""
    return add_scaled(base, weighted_sum(task_vectors(base, models), weight, normalize), scaling)
