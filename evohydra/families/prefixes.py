"""Hidden states behind the hops with which several paths of a generation begin, computed once for each batch."""

import copy
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from evohydra.files import Plain
from evohydra.merging.path_tensors import factors
from evohydra.recipe import Stack, digest

Keys = tuple[
    str, ...
]  # of a path: for each hop the digest of all that hidden states behind it depend on, but the batch


def keys_of(path: Stack) -> Keys:
    """Equal for two paths as far as they begin with the same layers of the same sources, and the same scales."""
    sources = [digest(source) for source in path.sources]
    state = hashlib.sha256(sources[0].encode())
    keys = []
    for hop, before, after in zip(path.hops, *factors(path), strict=True):
        state.update(f"{sources[hop.source]} {hop.layer} {before!r} {after!r}\n".encode())
        keys.append(state.hexdigest())
    return tuple(keys)


def shared_depths(keys: Keys, expected: Sequence[Keys]) -> list[int]:
    """The depths, deepest first, at which the present path is what an expected one has most in common with."""
    wanted, before = set(), set(keys)
    for others in expected:
        shared = sum(key in before for key in others)  # an unbroken run from the start: keys are of all hops so far
        if 0 < shared <= len(keys) and others[shared - 1] == keys[shared - 1]:
            wanted.add(shared)
        before.update(others)
    return sorted(wanted, reverse=True)


def most_kept(paths: Sequence[Stack]) -> tuple[int, int]:
    """What `Prefixes` keeps of a batch, at most at once, while these paths run in this order and there is room for all.

    The hidden states, and the layers in caches: those that several states have behind them count once.
    """
    order = [keys_of(path) for path in paths]
    kept: dict[str, Keys] = {}
    states = layers = 0
    for at, keys in enumerate(order):
        expected = order[at + 1 :]
        uses = {key for others in expected for key in others}
        kept = {key: begins for key, begins in kept.items() if key in uses or key in keys}
        reached = max((depth for depth, key in enumerate(keys, start=1) if key in kept), default=0)
        kept |= {keys[d - 1]: keys[:d] for d in shared_depths(keys, expected) if d > reached}
        states = max(states, len(kept))
        layers = max(layers, len({key for begins in kept.values() for key in begins}))
    return states, layers


@dataclass(frozen=True)
class Kept:
    """Hidden states (batch, length, hidden) behind `depth` hops, and what these have in the cache, if any."""

    depth: int
    hidden: Tensor
    cache: tuple[Any, ...]

    def storages(self) -> dict[int, int]:
        """Bytes by address; states of several depths share those in caches."""
        tensors = [self.hidden, *(each for layer in self.cache for each in (layer.keys, layer.values))]
        return {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}


class Prefixes:
    """Keeps hidden states of `base`, a decoder without its head, within `limit` bytes.

    Used is what a path finds of its own beginning for the very same inputs: then its first hops do not run. Kept is
    only what an expected path will find useful; where there is no room, what saves fewer layers goes. 0 bytes turn all
    of it off. `nbytes` are in use; `computed` and `reused` count tokens times layers.
    """

    def __init__(self, base: Any, limit: int) -> None:
        self._base, self._attribute, self._limit = base, "", limit
        self._expected: list[Keys] = []
        self._uses: Counter[str] = Counter()  # by how many of those expected
        self._keys: Keys = ()
        self._wanted: list[int] = []
        self._kept: dict[tuple[str, str], Kept] = {}
        self._storages: Counter[int] = Counter()  # by how many of those kept, by address
        self._undo: list[Any] = []
        self.nbytes = self.computed = self.reused = 0
        if limit > 0:
            base.register_forward_pre_hook(self._before, with_kwargs=True)
            base.register_forward_hook(self._after, always_call=True)

    def expect(self, paths: Sequence[Stack]) -> None:
        """Tell which paths will be run, in this order."""
        if self._limit > 0:
            self._expected = [keys_of(path) for path in paths]
            self._plan()

    def follow(self, path: Stack | None, attribute: str = "") -> None:
        """Tell which path runs from now on, its hops in the list called `attribute`; None for a whole model."""
        if self._limit > 0:
            self._attribute = attribute
            self._keys = keys_of(path) if path else ()
            if self._keys in self._expected:
                self._expected.remove(self._keys)
            self._plan()

    def _plan(self) -> None:
        self._wanted = shared_depths(self._keys, self._expected)
        self._uses = Counter(key for keys in self._expected for key in keys)
        for key, batch in list(self._kept):
            if not self._uses[key] and key not in self._keys:
                self._drop((key, batch))

    def _before(self, base: object, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        self._undo = []
        if not self._keys:
            return
        inputs = {**kwargs, **({"input_ids": args[0]} if args else {})}
        ids, embedded = inputs.get("input_ids"), inputs.get("inputs_embeds")
        tokens = ids.numel() if isinstance(ids, Tensor) else 0
        if isinstance(embedded, Tensor):  # (batch, length, hidden)
            tokens = embedded[..., 0].numel()
        layers = getattr(base, self._attribute)
        batch = self._batch(inputs) if len(args) < 2 else None
        depth = 0
        if batch is not None:
            depth = next((d for d in range(len(self._keys), 0, -1) if (self._keys[d - 1], batch) in self._kept), 0)
            for wanted in self._wanted:
                if wanted > depth:
                    hook = self._keeping(wanted, batch)
                    self._undo.append(layers[wanted - 1].register_forward_hook(hook, with_kwargs=True).remove)
        if depth and batch is not None:
            found = self._kept[self._keys[depth - 1], batch]
            done = [_Resume(found), *(_Skip() for _ in range(depth - 1))]
            setattr(base, self._attribute, torch.nn.ModuleList([*done, *layers[depth:]]))
            self._undo.append(lambda: setattr(base, self._attribute, layers))
        self.computed += tokens * (len(layers) - depth)
        self.reused += tokens * depth

    def _after(self, *_: object) -> None:
        for undo in self._undo:
            undo()
        self._undo = []

    def _batch(self, inputs: Plain) -> str | None:
        """A digest of the inputs of a forward pass; None where its hidden states are not to be kept."""
        cache = inputs.get("past_key_values")
        if cache is not None and (type(cache) is not DynamicCache or cache.get_seq_length() > 0):
            return None
        if inputs.get("output_hidden_states") or inputs.get("output_attentions"):
            return None
        use_cache = inputs.get("use_cache")
        state = hashlib.sha256(str(self._base.config.use_cache if use_cache is None else use_cache).encode())
        for name, value in sorted(inputs.items()):
            if isinstance(value, Tensor):
                state.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
                state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
            elif value is not None and not isinstance(value, bool) and value is not cache:
                return None
        return state.hexdigest()

    def _keeping(self, depth: int, batch: str) -> object:
        def keep(_: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
            if isinstance(output, Tensor):
                cache = _cache_among(args, kwargs)
                layers = tuple(copy.copy(layer) for layer in cache.layers[:depth]) if cache is not None else ()
                self._add((self._keys[depth - 1], batch), Kept(depth, output, layers))

        return keep

    def _add(self, place: tuple[str, str], kept: Kept) -> None:
        storages = kept.storages()
        value = kept.depth * self._uses[place[0]]
        while self.nbytes + sum(size for at, size in storages.items() if at not in self._storages) > self._limit:
            least = min(self._kept, key=self._value, default=None)
            if least is None or self._value(least) >= value:
                return
            self._drop(least)
        self._kept[place] = kept
        self.nbytes += sum(size for at, size in storages.items() if at not in self._storages)
        for at in storages:
            self._storages[at] += 1

    def _value(self, place: tuple[str, str]) -> int:
        """The layers that will not run."""
        return self._kept[place].depth * self._uses[place[0]]

    def _drop(self, place: tuple[str, str]) -> None:
        for at, size in self._kept.pop(place).storages().items():
            self._storages[at] -= 1
            if not self._storages[at]:
                del self._storages[at]
                self.nbytes -= size


class _Resume(torch.nn.Module):
    """In the place of a path's first layer: the hidden states behind the last of those that are skipped."""

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self._kept = kept

    def forward(self, hidden: Tensor, *args: object, **kwargs: object) -> Tensor:
        """(batch, length, hidden), whatever comes in; the cache gets the entries of all layers that are skipped."""
        cache = _cache_among(args, kwargs)
        if cache is not None:
            cache.layers[: self._kept.depth] = [copy.copy(layer) for layer in self._kept.cache]
        return self._kept.hidden


class _Skip(torch.nn.Module):
    """In the place of a layer that does not run."""

    def forward(self, hidden: Tensor, *_: object, **__: object) -> Tensor:
        """What comes in."""
        return hidden


def _cache_among(args: Sequence[object], kwargs: Mapping[str, object]) -> DynamicCache | None:
    """The cache, which layers call past_key_values or layer_past."""
    return next((each for each in (*args, *kwargs.values()) if isinstance(each, DynamicCache)), None)
