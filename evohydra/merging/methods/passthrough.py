"""One model as it is, or scaled: the layers of a stack, as mergekit's passthrough."""

from collections.abc import Sequence

from torch import Tensor

from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.methods import elementwise
from evohydra.merging.methods.requirements import need_models


@fused
def _scaled(entries: Entries, scale: Tensor) -> Tensor:
    return entries.models[0] * scale


@elementwise
def passthrough(
    base: Tensor | None, models: Sequence[Tensor], *, scale: float = 1.0, out: Tensor | None = None
) -> Tensor:
    """scale * theta_1. Takes exactly one model; the base takes no part."""
    need_models("passthrough", models, 1, 1)
    return _scaled(None, models, [float(scale)], out=out)
