"""What runs inside vLLM's own worker: it merges tensor by tensor, and hands each to the model that vLLM serves."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from evohydra.merging.engine import Engine
from evohydra.recipe import Node, checkpoints

EXTENSION = f"{__name__}.MergeExtension"


class MergeExtension:
    """Methods that vLLM adds to its worker (`worker_extension_cls`); they are called by `collective_rpc`."""

    model_runner: Any  # vLLM's

    def evohydra_watch(self) -> None:
        """Count from now on the predictions whose logits are not numbers."""
        model = self.model_runner.model
        compute = model.compute_logits
        self._seen, self._bad = 0, torch.zeros((), dtype=torch.int64, device=self.model_runner.device)

        def watched(*given: object, **named: object) -> Tensor | None:
            logits: Tensor | None = compute(*given, **named)
            if logits is not None:
                self._bad += (~logits.amax(dim=-1).isfinite()).sum()  # the largest is NaN where one of them is
                self._seen += len(logits)
            return logits

        model.compute_logits = watched

    def evohydra_not_numbers(self) -> tuple[int, int]:
        """Such predictions since the last call, and all of them."""
        found = int(self._bad), self._seen
        self._seen = 0
        self._bad.zero_()
        return found

    def evohydra_merge(
        self, engine: Engine, node: Node, names: Sequence[str], tied: Mapping[str, str], dtype: torch.dtype
    ) -> Exception | None:
        """Make the served model that of `node`; the reason where the merge fails.

        vLLM has taken its layers apart when the first tensor comes, so that there must be a whole model at the end:
        after a failure the rest is that of a source.
        """
        merged = _Tensors(engine, node, names, tied, dtype)
        self.model_runner.reload_weights(weights_iterator=iter(merged), is_checkpoint_format=True)
        return merged.failure


class _Tensors:
    """The tensors of a merge in `dtype`, under their names in Hugging Face's files.

    tied: names of tensors that are the same as another one, with the name of that. They follow it.
    """

    def __init__(
        self, engine: Engine, node: Node, names: Sequence[str], tied: Mapping[str, str], dtype: torch.dtype
    ) -> None:
        self._engine, self._node, self._names, self._dtype = engine, node, names, dtype
        self._same: dict[str, list[str]] = {}
        for name, other in tied.items():
            self._same.setdefault(other, []).append(name)
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        done = 0
        try:
            for name, tensor in self._engine.tensors(self._node, self._names):
                yield from self._named(name, tensor)
                done += 1
        except (ArithmeticError, ValueError, RuntimeError, MemoryError) as reason:
            self.failure = reason
        if self.failure is not None:
            whole = next(checkpoints(self._node))
            for name, tensor in self._engine.tensors(whole, self._names[done:]):
                yield from self._named(name, tensor)

    def _named(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        converted = tensor.to(self._dtype) if tensor.is_floating_point() else tensor
        for each in (name, *self._same.get(name, ())):
            yield each, converted
