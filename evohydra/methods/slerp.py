"""Spherical linear interpolation of two models (Shoemake 1985), as mergekit does it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

PARALLEL = 0.9995  # above this |cosine| the great circle is a straight line for all that floats can tell


def slerp(base: Tensor | None, models: Sequence[Tensor], *, t: float) -> Tensor:
    """From the first model (t = 0) to the second (t = 1) along the great circle of the flattened tensors.

    The directions give the angle, the raw tensors are interpolated: sin((1-t) a) / sin a * v0 + sin(t a) / sin a * v1.
    Tensors that are nearly parallel, or zero, are interpolated linearly. The base takes no part.
    """
    if len(models) != 2:
        raise ValueError(f"slerp takes exactly 2 models, got {len(models)}")
    first, second = models
    cosine = _cosine(first, second)
    if abs(cosine) > PARALLEL:
        return first * (1 - t) + second * t
    angle = math.acos(cosine)
    return first * (math.sin((1 - t) * angle) / math.sin(angle)) + second * (math.sin(t * angle) / math.sin(angle))


def _cosine(first: Tensor, second: Tensor) -> float:
    # float64 sums make the angle, and so the merge, the same whatever the number of threads.
    flat0, flat1 = first.reshape(-1).to(torch.float64), second.reshape(-1).to(torch.float64)
    norms = flat0.norm().item() * flat1.norm().item()
    if norms == 0.0:
        return 1.0
    return float(max(-1.0, min(1.0, (flat0 @ flat1).item() / norms)))
