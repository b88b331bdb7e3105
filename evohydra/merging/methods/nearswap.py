"""NearSwap: the base moves to the model where the two are close, as mergekit does it.

huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.arithmetic import stored
from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.methods import elementwise
from evohydra.merging.methods.requirements import need_at_least, need_base, need_models

NEAREST = 1e-6  # distances below count as this


@fused
def _nearswap(entries: Entries, t: Tensor, nearest: Tensor) -> Tensor:
    near, far = entries.base, entries.models[0]
    distance = torch.maximum(entries.rounded((near - far).abs()), nearest)
    # mergekit's t / distance is t times the rounded reciprocal, which float16 may not hold: infinity, so weight 1.
    ratio = torch.where(t > 0, entries.rounded(entries.rounded(1.0 / distance) * t), torch.zeros_like(t))
    weight = ratio.clamp(0.0, 1.0)
    return entries.rounded(weight * far) + entries.rounded(entries.rounded(1.0 - weight) * near)


@elementwise
def nearswap(base: Tensor | None, models: Sequence[Tensor], *, t: float, out: Tensor | None = None) -> Tensor:
    """w theta_1 + (1 - w) theta_base, entry by entry with w = min(1, t / |theta_base - theta_1|). t = 0: the base.

    Takes exactly one model beside the base. t is not negative, in units of the parameters.
    """
    need_models("nearswap", models, 1, 1)
    t = need_at_least("t", t, 0.0)
    return _nearswap(need_base(base), models, [float(t)], stored([NEAREST], models[0].dtype), out=out)
