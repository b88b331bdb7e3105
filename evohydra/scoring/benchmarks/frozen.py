"""Whether the weights of a model are still those that they were."""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.private_torch import writes

_SAME_WIDTH = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Watch:
    """Notices changes of `tensors` since it was asked before."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        self._versions: tuple[tuple[int, int], ...] | None = None
        self._print: tuple[tuple[int, int], ...] | None = None

    def changed(self) -> bool:
        """Whether any number is another one; True at the first call."""
        counted = not any(tensor.is_inference() for tensor in self._tensors)  # those do not count their changes
        versions = tuple((writes(tensor), tensor.data_ptr()) for tensor in self._tensors) if counted else None
        if versions is not None and versions == self._versions:
            return False
        known, self._print, self._versions = self._print, fingerprints(self._tensors), versions
        return self._print != known


def fingerprints(tensors: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    """Two sums over the bits of each of `tensors`."""
    return tuple(map(_fingerprint, tensors))


def _fingerprint(tensor: Tensor) -> tuple[int, int]:
    bits = tensor.detach().contiguous().view(_SAME_WIDTH[tensor.element_size()]).flatten()
    weights = torch.arange(bits.numel(), device=bits.device) % 65521 + 1
    return int(bits.sum(dtype=torch.int64)), int((bits * weights).sum())
