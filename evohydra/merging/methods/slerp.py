"""Spherical linear interpolation of two models (Shoemake 1985), as mergekit does it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.exact import arccosine, sine
from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.kernels.lines import precise_dot
from evohydra.merging.methods import once
from evohydra.merging.methods.requirements import need_models
from evohydra.merging.methods.task_vectors import combination

PARALLEL = 0.9995  # above this |cosine| the great circle is a straight line for all that floats can tell
SMALL = 1e-8  # norms up to this are not divided by


@fused
def _interpolation(entries: Entries, coefficients: Tensor) -> Tensor:
    return combination(entries, coefficients)


def cosine(base: Tensor | None, models: Sequence[Tensor]) -> float:
    """The cosine between the two flattened models; a provider for `once`.

    Sums are float64, the same whatever the number of threads; mergekit's are float32.
    """
    need_models("slerp", models, 2, 2)
    lengths = [math.sqrt(float(precise_dot(model, model))) for model in models]
    norms = [length if length > SMALL else 1.0 for length in lengths]
    return max(-1.0, min(1.0, float(precise_dot(*models)) / norms[0] / norms[1]))


@once(cosine=cosine)
def slerp(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    t: float,
    cosine: float | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """From the first model (t = 0) to the second (t = 1) along the great circle of the flattened tensors.

    The directions give the angle, the raw tensors are interpolated: sin((1-t) a) / sin a * v0 + sin(t a) / sin a * v1.
    Tensors that are nearly parallel are interpolated linearly. The base takes no part.
    """
    need_models("slerp", models, 2, 2)
    assert cosine is not None
    if abs(cosine) > PARALLEL:
        coefficients = [1 - t, float(t)]
    else:
        angle = arccosine(torch.tensor([cosine], dtype=torch.float64))
        near, far, whole = sine(torch.cat([(1 - t) * angle, t * angle, angle])).tolist()
        coefficients = [near / whole, far / whole]
    return _interpolation(None, models, coefficients, bounded=True, out=out)
