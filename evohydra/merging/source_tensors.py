"""The tensors of checkpoints on the engine's device: mapped, brought in ahead, and kept where there is room."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from evohydra.merging.cache import Cache
from evohydra.merging.checkpoints import CheckpointReader, TensorSource
from evohydra.merging.transfers import Reads, Transfers


class SourceTensors:
    """Tensors of `sources`, by the name of the checkpoint; `cache` keeps what had to be moved to `device`."""

    def __init__(self, sources: Mapping[str, TensorSource], device: torch.device, cache: Cache) -> None:
        self._sources, self._device, self._cache = sources, device, cache
        self._transfers = Transfers(device)

    def read(self, checkpoint: str, name: str) -> Tensor:
        """One tensor, as it is stored."""
        key = ("source", checkpoint, name)
        if key in self._cache:
            kept: Tensor = self._cache[key]
            return kept
        tensor = self._transfers.take((checkpoint, name))
        if tensor is None:
            source = self._sources[checkpoint]
            tensor = source.read(name)
            if self._device.type == "cpu" and isinstance(source, CheckpointReader):
                return tensor  # mapped, not made
        moved: Tensor = self._cache.kept(key, lambda: tensor.to(self._device))
        return moved

    def ahead(self, names: Sequence[str], checkpoints: Sequence[str]) -> Iterator[str]:
        """Each of `names`; while its tensors are merged, those of the next one come from each of `checkpoints`."""
        return self._transfers.ahead(names, lambda name: self._missing(checkpoints, name))

    def _missing(self, checkpoints: Sequence[str], tensor: str) -> Reads:
        """How to read what the device does not hold yet of one tensor of each checkpoint."""
        return {
            (name, tensor): lambda source=self._sources[name]: source.read(tensor)  # type: ignore[misc]
            for name in checkpoints
            if ("source", name, tensor) not in self._cache and tensor in self._sources[name].shapes
        }
