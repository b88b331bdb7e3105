"""The unified task vector of EMR-Merging: elect a sign, keep the largest magnitude (arXiv 2405.17461, section 3.2).

EMR then gives each task a mask and a rescaler of this vector. Those need the task's label at inference, so there is no
single checkpoint that holds them: they are out of scope here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.methods import elementwise
from evohydra.merging.methods.requirements import need_base, need_models


@fused
def _emr(entries: Entries, scaling: Tensor) -> Tensor:
    vectors = entries.task_vectors()
    total = vectors[0]
    for vector in vectors[1:]:
        total = total + vector
    sign = torch.sign(total)
    largest = torch.zeros_like(total)
    for vector in vectors:
        largest = torch.maximum(largest, vector * sign)  # negative where the signs differ
    return entries.base + scaling * (sign * largest)


@elementwise
def emr(base: Tensor | None, models: Sequence[Tensor], *, scaling: float = 1.0, out: Tensor | None = None) -> Tensor:
    """theta_base + scaling * sgn(sum_k tau_k) * the largest |tau_k| among those of that sign.

    Where the sum is 0 nothing is elected: 0, as in the paper (its code elects minus there).
    """
    need_models("emr", models, 1)
    return _emr(need_base(base), models, [float(scaling)], out=out)
