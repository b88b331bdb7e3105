"""A checkpoint that was written and read back, against the live model: weights bit for bit, outputs within rounding."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ADAPTER = ".lora_"  # in the names of what an adapter holds, which is loaded from the same file on both sides


@dataclass(frozen=True)
class Comparison:
    """What a written checkpoint differs in from the live model.

    weights: the names of the tensors whose bits differ, or that one of the two lacks. outputs: the largest difference
    between their outputs on the same inputs, over the largest output. rounding: how much of it rounding explains where
    the weights are the same bits.
    """

    weights: tuple[str, ...]
    outputs: float
    rounding: float

    @property
    def same_bits(self) -> bool:
        """Whether the weights are the same bits, and the outputs the same but for rounding."""
        return not self.weights and self.outputs <= self.rounding


def differing(written: nn.Module, live: nn.Module, prefix: str = "") -> tuple[str, ...]:
    """The names, behind `prefix`, of stored tensors that are not the same bits in both; of adapters none."""
    theirs, ours = (
        {name: tensor for name, tensor in module.state_dict().items() if ADAPTER not in name}
        for module in (written, live)
    )
    unlike = {name for name in theirs.keys() & ours.keys() if not _same_bits(theirs[name], ours[name])}
    return tuple(prefix + name for name in sorted(unlike | (theirs.keys() ^ ours.keys())))


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    first, second = (tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(first, second.to(first.device))


def apart(outputs: Tensor, expected: Tensor) -> float:
    """The largest difference, over the largest number of `expected`; infinite where only one of both is not finite."""
    theirs, ours = outputs.float(), expected.float()
    if torch.equal(theirs.isnan(), ours.isnan()):
        theirs, ours = theirs.nan_to_num(), ours.nan_to_num()
    difference = float((theirs - ours).abs().max() / ours.abs().max().clamp(min=1e-6))
    return difference if math.isfinite(difference) else math.inf


def rounding(modules: Sequence[nn.Module], dtype: torch.dtype, passes: int = 1) -> float:
    """How far outputs may be apart, over the largest one, when the same weights lie elsewhere in memory.

    A product with a matrix sums n terms, in an order that depends on where they lie in memory: that is off by up to
    sqrt(n) epsilons of float32, and the result is rounded to `dtype`. The errors of a chain of products, here of all
    matrices in all `passes`, add up like the steps of a random walk.
    """
    sums = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    matrices = [p for module in modules for p in module.parameters() if p.dim() > 1 and p.numel()]
    steps = (torch.finfo(dtype).eps + sums * math.sqrt(p.numel() / p.shape[0]) for p in matrices)
    return math.sqrt(passes * sum(step**2 for step in steps))
