"""Tensors on their way to an accelerator while the ones before them are merged there."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

Key = tuple[str, str]
Reads = Mapping[Key, Callable[[], Tensor]]


class Transfers:
    """Reads one item's tensors ahead into pinned memory and copies them on a stream of their own.

    On a CPU there is nothing to do: tensors are used where they are mapped.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._there: dict[Key, Tensor] = {}
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._reader = ThreadPoolExecutor(1, "transfers") if self._stream else None

    def ahead(self, items: Sequence[str], reads: Callable[[str], Reads]) -> Iterator[str]:
        """Each item in order; while it is worked on, what `reads` names of the next one is brought in."""
        if self._reader is None:
            yield from items
            return
        under_way = self._reader.submit(self._bring, reads(items[0])) if items else None
        for place, item in enumerate(items):
            self._there = self._arrived(under_way)
            if place + 1 < len(items):
                under_way = self._reader.submit(self._bring, reads(items[place + 1]))
            yield item
        self._there = {}

    def take(self, key: Key) -> Tensor | None:
        """The tensor of the present item, if it was brought in."""
        return self._there.get(key)

    @torch.inference_mode()
    def _bring(self, reads: Reads) -> dict[Key, Tensor]:
        pinned = {key: read().pin_memory() for key, read in reads.items()}
        with torch.cuda.stream(self._stream):
            moved = {key: tensor.to(self._device, non_blocking=True) for key, tensor in pinned.items()}
        assert self._stream is not None
        self._stream.synchronize()  # in this thread: the pinned memory may be let go, the caller goes on meanwhile
        return moved

    def _arrived(self, under_way: "Future[dict[Key, Tensor]] | None") -> dict[Key, Tensor]:
        arrived = under_way.result() if under_way else {}
        for tensor in arrived.values():
            tensor.record_stream(torch.cuda.current_stream(self._device))
        return arrived
