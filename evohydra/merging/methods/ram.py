"""Reinforced Agent Merging: average what models share, keep what one changed alone (arXiv 2601.13572).

As mergekit does it. An entry of a task vector is changed where it exceeds epsilon, and shared where more than one
model changed it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evohydra.merging.kernels.arithmetic import stored
from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.methods import elementwise, once
from evohydra.merging.methods.requirements import need_at_least, need_base, need_models

BLOCK = 2**20  # entries that are counted at a time


@fused
def _ram(entries: Entries, epsilon: Tensor, scaling: Tensor) -> Tensor:
    shared, unique = _split(entries, epsilon)
    total = shared[0] + unique[0]
    for one, other in zip(shared[1:], unique[1:], strict=True):
        total = total + (one + other)
    return entries.base + entries.rounded(entries.rounded(total) * scaling)


@fused
def _ramplus(entries: Entries, epsilon: Tensor, factor: Tensor) -> Tensor:
    shared, unique = _split(entries, epsilon)
    total = unique[0] * factor[0] + shared[0]
    for k in range(1, len(shared)):
        total = total + (unique[k] * factor[k] + shared[k])
    return entries.base + total  # mergekit's factors are float32, and so is all that they touch


def _split(entries: Entries, epsilon: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Of each model the shared entries, divided by the number of models that share them, and those of its own."""
    vectors = entries.task_vectors()
    changed = [vector.abs() > epsilon for vector in vectors]
    count = changed[0].to(epsilon.dtype)
    for mask in changed[1:]:
        count = count + mask.to(epsilon.dtype)
    pairs = list(zip(vectors, changed, strict=True))
    shared = [entries.rounded(v * (mask & (count > 1)) / count.clamp(min=1.0)) for v, mask in pairs]
    return shared, [v * (mask & (count == 1)) for v, mask in pairs]


@elementwise
def ram(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    epsilon: float = 1e-5,
    scaling: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """theta_base + scaling * the mean of the changes where several models changed an entry, the change where one did.

    mergekit has no scaling: 1.
    """
    need_models("ram", models, 1)
    epsilon = need_at_least("epsilon", epsilon, 0.0)
    return _ram(need_base(base), models, stored([epsilon], models[0].dtype), [float(scaling)], out=out)


def counts(base: Tensor | None, models: Sequence[Tensor], *, epsilon: float) -> NDArray[np.int64]:
    """Of each model the number of its shared entries and of its own, (models, 2)."""
    need_models("ramplus_tl", models, 1)
    bound = stored([need_at_least("epsilon", epsilon, 0.0)], models[0].dtype)[0]
    flat = [x.reshape(-1) for x in (need_base(base), *models)]
    result = np.zeros((len(models), 2), dtype=np.int64)
    for start in range(0, flat[0].shape[0], BLOCK):
        first, *others = (x[start : start + BLOCK] for x in flat)
        changed = torch.stack([(x - first).abs() > bound for x in others])  # (models, n)
        sharing = changed.sum(dim=0)
        result[:, 0] += (changed & (sharing > 1)).sum(dim=1).cpu().numpy()
        result[:, 1] += (changed & (sharing == 1)).sum(dim=1).cpu().numpy()
    return result


@once(counted=counts)
def ramplus_tl(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    counted: NDArray[np.int64],
    r: float = 0.1,
    alpha: float = 0.2,
    epsilon: float = 1e-5,
    out: Tensor | None = None,
) -> Tensor:
    """RAM whose own entries are multiplied by 1 + r * min(alpha, shared / own), counted in this tensor alone.

    The paper counts in the whole model; mergekit's method, and this one, are tensor-local. A model without a shared
    entry keeps its own as they are.
    """
    alpha = need_at_least("alpha", alpha, 0.0)
    shared, own = torch.from_numpy(counted.astype(np.float32)).unbind(dim=1)
    ratio = torch.where(shared == 0, torch.zeros(()), shared / own.clamp(min=epsilon))
    factor = 1 + r * ratio.clamp(0.0, alpha)
    return _ramplus(need_base(base), models, stored([epsilon], models[0].dtype), factor.tolist(), out=out)
