"""The last step of merging by task vectors: weigh and sum them, by elected signs or all, and add them to the base."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evohydra.merging.kernels.arithmetic import stored
from evohydra.merging.kernels.fused import Entries
from evohydra.merging.methods.sign_election import elected_sum, weights_of_sets
from evohydra.merging.methods.task_vectors import check_weights, plain_sum, weights_and_sum


class Mix(NamedTuple):
    """How task vectors are mixed, as a kernel takes it: its first two `numbers`, and its `flags`.

    Bounded (see `fused`), unless sums of weights of both signs are divided by, which can be next to nothing.
    """

    numbers: tuple[list[float], list[float]]
    flags: dict[str, Any]


def mix(weight: Sequence[float], models: Sequence[Tensor], *, elect: bool, normalize: bool, scaling: float) -> Mix:
    """The mix with these weights; ValueError for weights that are not finite, or sum to 0 where they are divided by."""
    check_weights(weight, models, normalize and not elect)
    dtype: torch.dtype = models[0].dtype
    rounded = stored(weight, dtype)
    bounded = not (elect and normalize) or min(rounded) >= 0
    packed = weights_of_sets(rounded, dtype) if elect else weights_and_sum(rounded, dtype)
    flags = {"elect": elect, "normalize": normalize, "scaled": scaling != 1}
    return Mix((packed, [float(scaling)]), flags | {"bounded": bounded})


def mixed(
    entries: Entries,
    deltas: Sequence[Tensor],
    weights: Tensor,
    scaling: Tensor,
    *,
    elect: bool,
    normalize: bool,
    scaled: bool,
) -> Tensor:
    """theta_base + lambda * the sum of weighted task vectors (arXiv 2212.04089, section 3), in a kernel."""
    delta = (elected_sum if elect else plain_sum)(entries, deltas, weights, normalize)
    return entries.base + (entries.rounded(delta * scaling[0]) if scaled else delta)
