"""The engine: a recipe and the tensors of its checkpoints -> merged tensors, one at a time."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from evohydra.checkpoints import TensorSource
from evohydra.methods import SUPPLIED, Method, resolve
from evohydra.methods.randomness import stream_key, uniforms
from evohydra.methods.trimming import Cut, cut, magnitude_order
from evohydra.recipe import Checkpoint, Group, Merge, Node, digest

BUNDLE = 2**22  # elements: above this a call's overhead is nothing beside its work


class MergeError(ArithmeticError):
    """A recipe whose merge is not finite: which tensor, and with which parameters."""


class Engine:
    """Merges recipes over `sources`, the tensors of each checkpoint by its name.

    What depends on the sources alone (the order of magnitudes, the random numbers behind masks, the sources themselves
    on `device`) is computed once and kept, as long as all of it together stays within `cache_bytes`.
    """

    def __init__(
        self, sources: Mapping[str, TensorSource], *, device: torch.device, cache_bytes: int = 2 * 1024**3
    ) -> None:
        self.sources = sources
        self.device = device
        self._free = cache_bytes
        self._cache: dict[tuple[str, ...], Tensor] = {}
        self._methods: dict[str, Method] = {}

    def shapes(self, node: Node) -> Mapping[str, tuple[int, ...]]:
        """Name and shape of every tensor that `node` gives."""
        if isinstance(node, Checkpoint):
            return self.sources[node.name].shapes
        return self.shapes(node.base or node.models[0])

    @torch.inference_mode()
    def merge_into(self, node: Node, parameters: Mapping[str, Tensor]) -> None:
        """Write the merge into `parameters`, by name, in place and in their own dtype.

        Raises MergeError where a merged tensor is not finite, ValueError where a method refuses its parameters.
        """
        groups = _group_by_tensor(node)
        bundled: set[str] = set()
        for merge, group, names in self._bundles(node, parameters):
            pieces = torch.split(self._bundle(merge, group, names), [parameters[name].numel() for name in names])
            for name, piece in zip(names, pieces, strict=True):
                parameters[name].copy_(piece.view_as(parameters[name]))
            bundled.update(names)
        for name, parameter in parameters.items():
            if name not in bundled:
                parameter.copy_(self._tensor(node, name, groups))

    def _bundles(self, node: Node, parameters: Mapping[str, Tensor]) -> list[tuple[Merge, Group, tuple[str, ...]]]:
        """Groups whose tensors can be merged end to end as one: those of small models, by elementwise methods."""
        if not isinstance(node, Merge) or not self._method(node.method).elementwise:
            return []
        bundles = [(group, tuple(name for name in group.tensors if name in parameters)) for group in node.groups]
        return [
            (node, group, names) for group, names in bundles if 0 < sum(parameters[n].numel() for n in names) <= BUNDLE
        ]

    def _bundle(self, node: Merge, group: Group, names: tuple[str, ...]) -> Tensor:
        def flat(model: Node) -> Tensor:
            key = ("bundle", _key(model), *names)
            return self._resident(key, lambda: torch.cat([self._float(model, name).reshape(-1) for name in names]))

        base = flat(node.base) if node.base else None
        return self._apply(node, group, ", ".join(names), base, [flat(model) for model in node.models])

    @torch.inference_mode()
    def tensor(self, node: Node, name: str) -> Tensor:
        """One merged tensor, in float32 where it was merged and as stored where it was copied."""
        return self._tensor(node, name, _group_by_tensor(node))

    @torch.inference_mode()
    def probe(self, node: Node) -> None:
        """Merge the smallest tensor of each group, so that a method's complaint comes before any search."""
        if isinstance(node, Merge):
            shapes = self.shapes(node)
            groups = _group_by_tensor(node)
            for group in node.groups:
                if group.tensors:
                    smallest = min(group.tensors, key=lambda name: torch.Size(shapes[name]).numel())
                    self._tensor(node, smallest, groups)

    def _tensor(self, node: Node, name: str, groups: Mapping[str, Group]) -> Tensor:
        if isinstance(node, Checkpoint):
            return self._resident(("source", node.name, name), lambda: self.sources[node.name].read(name))
        group = groups.get(name)
        if group is None:
            return self.tensor(node.base or node.models[0], name)
        base = self._float(node.base, name) if node.base else None
        return self._apply(node, group, name, base, [self._float(model, name) for model in node.models])

    def _apply(self, node: Merge, group: Group, name: str, base: Tensor | None, models: Sequence[Tensor]) -> Tensor:
        method = self._method(node.method)
        given = {**node.options, **group.parameters}
        if missing := sorted(method.required - given.keys() - set(SUPPLIED)):
            raise ValueError(
                f"{node.method} needs {missing} for group {group.name!r}, the recipe gives {sorted(given)}"
            )
        supplied = self._supply(method, node, name, base, models, given)
        merged = method.function(base, models, **{k: v for k, v in given.items() if k in method.parameters}, **supplied)
        # The sum is cheaper to look at, and finite unless an element is not (or all together overflow).
        if not math.isfinite(merged.sum().item()) and not bool(merged.isfinite().all()):
            raise MergeError(f"{name!r} of group {group.name!r} is not finite after {node.method} with {given}")
        return merged

    def _float(self, node: Node, name: str) -> Tensor:
        tensor = self.tensor(node, name)
        return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.to(torch.float32)

    def _method(self, path: str) -> Method:
        if path not in self._methods:
            self._methods[path] = resolve(path)
        return self._methods[path]

    def _supply(
        self,
        method: Method,
        node: Merge,
        name: str,
        base: Tensor | None,
        models: Sequence[Tensor],
        given: Mapping[str, Any],
    ) -> dict[str, object]:
        """The parameters that the engine supplies, see `evohydra.methods`."""
        supplied: dict[str, object] = {}
        for wanted in method.parameters.intersection(SUPPLIED):
            if wanted == "cuts":
                if base is None:
                    raise ValueError(f"{node.method} trims task vectors and needs the base model of its sources")
                supplied["cuts"] = [
                    self._cut(model_node, node, name, model - base, density)
                    for model_node, model, density in zip(node.models, models, given["density"], strict=True)
                ]
            else:
                supplied["uniforms"] = [self._uniforms(model, name, models[0], given) for model in node.models]
        return supplied

    def _cut(self, model: Node, node: Merge, name: str, delta: Tensor, density: float) -> Cut:
        key = ("order", _key(model), _key(node.base), name)
        return cut(delta, self._resident(key, lambda: magnitude_order(delta)), density)

    def _uniforms(self, model: Node, name: str, like: Tensor, given: Mapping[str, Any]) -> Tensor:
        stream = stream_key(int(given["mask_seed"]), name, _key(model))
        key = ("uniforms", str(stream), name)
        return self._resident(key, lambda: uniforms(stream, tuple(like.shape), like.device))

    def _resident(self, key: tuple[str, ...], make: Callable[[], Tensor]) -> Tensor:
        """What `make` gives, on the device; kept where the cache has room for it."""
        if key in self._cache:
            return self._cache[key]
        tensor = make().to(self.device)
        size = tensor.numel() * tensor.element_size()
        if size <= self._free:
            self._free -= size
            self._cache[key] = tensor
        return tensor


def _group_by_tensor(node: Node) -> dict[str, Group]:
    return {name: group for group in node.groups for name in group.tensors} if isinstance(node, Merge) else {}


def _key(node: Node | None) -> str:
    """What tells one model of a recipe from another in caches and random streams."""
    if node is None:
        return ""
    return node.name if isinstance(node, Checkpoint) else digest(node)
