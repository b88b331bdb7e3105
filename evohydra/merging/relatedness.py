"""Whether sources descend from their base at all: the angles between their weights, on a sample."""

import math
import statistics
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from evohydra.merging.checkpoints import SourceError, TensorSource

MATRICES, ELEMENTS = 8, 2**20
# Fine-tuned models lie at cosines near 1 to their base (the zoo's: above 0.99), independent ones at 0; the threshold
# leaves room for long further pretraining.
LEAST_COSINE = 0.3


def cosines(
    source: TensorSource, base: TensorSource, names: Collection[str] | None = None
) -> dict[str, tuple[float, float]]:
    """For a sample of matrices, among `names` if given, the cosine of source and base, and |source - base| / |base|.

    The sample: up to 8 matrices, evenly over the names of those that are no smaller than the median one, and of each
    up to 2^20 elements from its middle. Matrices that are zero in either are left out; numbers that are not finite give
    a cosine that is not.
    """
    sizes = {
        name: shape[0] * shape[1]
        for name, shape in base.shapes.items()
        if len(shape) == 2 and (names is None or name in names)
    }
    large = [name for name in sizes if sizes[name] >= statistics.median(sizes.values())]
    chosen = [large[i * len(large) // MATRICES] for i in range(MATRICES)] if len(large) > MATRICES else large
    found = {}
    for name in chosen:
        one, other = _middle(source.read(name)), _middle(base.read(name))
        lengths = float(one.norm()), float(other.norm())
        if not min(lengths) <= 0:
            found[name] = float(one @ other) / (lengths[0] * lengths[1]), float((one - other).norm()) / lengths[1]
    return found


def check_kinship(
    sources: Mapping[str, TensorSource], base: str, allow: bool, names: Collection[str] | None = None
) -> tuple[str, ...]:
    """What speaks against `base` being the base of a source, for each such source; SourceError unless `allow`.

    `names` are the tensors that are merged (None: all).
    """
    doubts = []
    for name, source in sources.items():
        found = cosines(source, sources[base], names) if name != base else {}
        unlike = [(cosine, ratio) for cosine, ratio in found.values() if not math.isfinite(cosine + ratio)]
        if unlike:  # no order among numbers puts these in their place
            doubts.append(
                f"source {name!r} cannot be compared with the base: {len(unlike)} of {len(found)} matrices have no "
                "angle to the base's that is a number"
            )
        elif found and statistics.median(cosine for cosine, _ in found.values()) < LEAST_COSINE:
            cosine, ratio = (statistics.median(numbers) for numbers in zip(*found.values(), strict=True))
            doubts.append(
                f"source {name!r} does not look like a descendant of the base: over {len(found)} matrices the median "
                f"cosine of their weights is {cosine:.3f} (expected at least {LEAST_COSINE}), and the difference is "
                f"{ratio:.2f} times as long as the base's weights"
            )
    if doubts and not allow:
        raise SourceError(f"{'; '.join(doubts)} (allow_other_base=true lets it pass)")
    return tuple(doubts)


def _middle(tensor: Tensor) -> Tensor:
    """Up to ELEMENTS numbers from the middle of a tensor, as float64."""
    flat = tensor.reshape(-1)
    start = max(0, (len(flat) - ELEMENTS) // 2)
    return flat[start : start + ELEMENTS].to(torch.float64)
