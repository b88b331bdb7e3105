"""Vision features of a frozen tower and projector: computed for the first genome, reused by all others."""

import contextlib
import copy
import functools
import time
from collections.abc import Hashable, Iterator
from typing import Any

import torch
from torch import Tensor

from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.frozen import Watch
from evohydra.scoring.benchmarks.run_cache import RunCache

METHODS = ("get_image_features", "get_video_features")


class VisionFeatures:
    """Stands in for the model's `get_image_features` and `get_video_features` while a batch is answered.

    What they give for a batch is kept in CPU memory within `max_bytes`, by the batch's key, and given again bit for
    bit. Whoever names the key answers for it: the same key, the same pixels. Should a weight outside the language model
    change after all, everything is computed anew. Works with every model of transformers whose forward pass and
    generation ask those methods (LLaVA, LLaVA-NeXT, Idefics3, SmolVLM, Qwen2-VL, Qwen2.5-VL among them).
    `seconds` is the time spent in the tower and projector so far, `saved` what reuse has spared.
    """

    def __init__(self, module: torch.nn.Module, max_bytes: int) -> None:
        self._module = module
        inner = getattr(module, "base_model", module)  # what generate and the forward pass call
        self._asked = [(part, name) for part in (inner,) for name in METHODS if callable(getattr(part, name, None))]
        if not self._asked:
            raise BenchmarkError(f"{type(module).__name__} has no {METHODS[0]}: it is not a vision-language model")
        self._frozen = _outside_language_model(module)
        self._watch = Watch(self._frozen)
        self._cache = RunCache(max_bytes)
        self._cost: dict[Hashable, float] = {}
        self.seconds, self.saved = 0.0, 0.0

    def begin_genome(self) -> None:
        """Another genome is in the model; forgets everything where the vision part has changed with it."""
        self._cache.begin_round()
        if self._watch.changed():
            self._cache.clear()

    @contextlib.contextmanager
    def batch(self, key: Hashable) -> Iterator[None]:
        """Within this context the features of the batch `key` are kept and reused; the model is as before after it."""
        calls = dict.fromkeys(METHODS, 0)

        def standing_in(part: object, name: str) -> object:
            method = getattr(part, name)

            @functools.wraps(method)  # generate looks at the signature
            def called(*inputs: object, **named: object) -> object:
                calls[name] += 1
                return self._once((key, name, calls[name]), method, inputs, named)

            return called

        try:
            for part, name in self._asked:
                part.__dict__[name] = standing_in(part, name)
            yield
        finally:
            for part, name in self._asked:
                part.__dict__.pop(name, None)

    def _once(self, key: Hashable, method: Any, inputs: Any, named: Any) -> object:
        kept = self._cache.get(key)
        start = _now(self._frozen)
        if kept is not None:
            output = _placed(kept, None)
            self.saved += self._cost[key] - (_now(self._frozen) - start)
            return output
        output = method(*inputs, **named)
        self._cost[key] = _now(self._frozen) - start
        self.seconds += self._cost[key]
        stored = _placed(_needed(output), torch.device("cpu"))
        self._cache.put(key, stored, _size(stored))
        return _placed(output, None)


class _Elsewhere:
    """A tensor kept on the CPU, and the device that it came from."""

    def __init__(self, tensor: Tensor) -> None:
        self.device = tensor.device
        self.tensor = tensor.cpu() if tensor.device.type != "cpu" else tensor

    def back(self) -> Tensor:
        return self.tensor.to(self.device)


def _needed(output: Any) -> object:
    """Without what only explains the features: the tower's hidden states, many times their size."""
    if not hasattr(output, "pooler_output"):
        return output
    needed = copy.copy(output)
    for name in ("last_hidden_state", "hidden_states", "attentions"):
        if getattr(needed, name, None) is not None:
            needed[name] = None
    return needed


def _placed(value: Any, to: torch.device | None) -> object:
    """Fresh containers (generation changes those that it gets) of the same tensors, put away (`to`) or brought back."""
    if isinstance(value, Tensor):
        return _Elsewhere(value) if to is not None else value
    if isinstance(value, _Elsewhere):
        return value.back()
    if isinstance(value, list | tuple):
        return type(value)(_placed(each, to) for each in value)
    if hasattr(value, "pooler_output"):
        fresh = copy.copy(value)
        for name in list(fresh.keys()):
            fresh[name] = _placed(fresh[name], to)
        return fresh
    return value


def _size(value: Any) -> int:
    if isinstance(value, _Elsewhere):
        return value.tensor.nbytes
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    if hasattr(value, "pooler_output"):
        return sum(_size(each) for each in value.values())
    return 0


def _outside_language_model(module: Any) -> list[Tensor]:
    """The parameters of the vision part: those of neither the decoder nor the head."""
    parts = [getattr(module, ask)() for ask in ("get_decoder", "get_output_embeddings") if hasattr(module, ask)]
    language = {id(parameter) for part in parts if part is not None for parameter in part.parameters()}
    return [parameter for parameter in module.parameters() if id(parameter) not in language]


def _now(tensors: list[Tensor]) -> float:
    if tensors and tensors[0].is_cuda:  # kernels run behind the caller's back
        torch.cuda.synchronize(tensors[0].device)
    return time.perf_counter()
