"""Task arithmetic (Editing Models with Task Arithmetic, arXiv 2212.04089, section 2)."""

from collections.abc import Sequence

from torch import Tensor

from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.methods import elementwise, linear_in_task_vectors
from evohydra.merging.methods.mixing import mix, mixed
from evohydra.merging.methods.requirements import need_base
from evohydra.merging.methods.task_vectors import coefficients_of_task_vectors


@fused
def _arithmetic(entries: Entries, weights: Tensor, scaling: Tensor, **how: bool) -> Tensor:
    return mixed(entries, entries.task_vectors(), weights, scaling, **how)


@linear_in_task_vectors(coefficients_of_task_vectors)
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
    how = mix(weight, models, elect=False, normalize=normalize, scaling=scaling)
    return _arithmetic(need_base(base), models, *how.numbers, out=out, **how.flags)
