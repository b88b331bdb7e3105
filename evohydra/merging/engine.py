"""The engine: a recipe and the tensors of its checkpoints -> merged tensors, one at a time."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from evohydra.files import Plain
from evohydra.merging.adapter_merges import AdapterMerges, changed, given_parameters
from evohydra.merging.cache import Cache
from evohydra.merging.checkpoints import TensorSource
from evohydra.merging.factor_merges import of_factors
from evohydra.merging.group_methods import method_of
from evohydra.merging.kernels.compilation import compiling
from evohydra.merging.kernels.fused import NotFinite, is_finite, largest_entry
from evohydra.merging.kernels.randomness import stream_key
from evohydra.merging.methods import Method, asks, resolve
from evohydra.merging.path_tensors import plain_shapes, plain_tensor
from evohydra.merging.signatures import OUT, STATISTICS, STREAMS
from evohydra.merging.source_tensors import SourceTensors
from evohydra.merging.statistics import Statistics, found_of
from evohydra.recipe import Checkpoint, Group, Merge, Node, Stack, children, digest

PEAK_BLOCK = 2**22  # elements
BUNDLE = 2**22  # elements: above this a call's overhead is nothing beside its work


class MergeError(ArithmeticError):
    """A recipe whose merge is not finite: which tensor, and with which parameters."""


class Engine:
    """Merges recipes over `sources`, the tensors of each checkpoint by its name.

    Merging is done in `dtype`, to which all sources are converted; without it each tensor in the type that its sources
    have in common. What depends on the sources alone (rankings of magnitudes, cosines, norms under masks, the sources
    themselves on another device) is computed once and kept, as long as all of it together stays within `cache_bytes`.
    Results are the same bits with and without a cache, and whether kernels are compiled or not. With `by_factors`
    adapters of one base are merged as adapters where the method is linear in task vectors: only the base is read whole,
    and the merge is rounded once. `statistics` are what passes over texts have found, for methods that weigh by it.
    """

    def __init__(
        self,
        sources: Mapping[str, TensorSource],
        *,
        device: torch.device,
        dtype: torch.dtype | None = None,
        compile_kernels: bool = False,
        cache_bytes: int = 2 * 1024**3,
        by_factors: bool = True,
        statistics: Statistics | None = None,
    ) -> None:
        self.sources = sources
        self.statistics = statistics
        self.device = device
        self.dtype = dtype
        self.compile_kernels = compile_kernels
        self._cache = Cache(cache_bytes)
        self.adapters = AdapterMerges(sources, device, self._cache, by_factors, self._apply)
        self._stored = SourceTensors(sources, device, self._cache)

    def uncached(self, device: torch.device | None = None) -> "Engine":
        """An engine over the same sources that keeps nothing, on `device` or this one's."""
        return Engine(
            self.sources,
            device=device or self.device,
            dtype=self.dtype,
            compile_kernels=self.compile_kernels,
            cache_bytes=0,
            by_factors=self.adapters.wanted,
            statistics=self.statistics,
        )

    def shapes(self, node: Node) -> Mapping[str, tuple[int, ...]]:
        """Name and shape of every tensor that `node` gives."""
        if isinstance(node, Checkpoint):
            return self.sources[node.name].shapes
        if isinstance(node, Stack):
            return plain_shapes(node, [self.shapes(source) for source in node.sources])
        return self.shapes(node.base or node.models[0])

    def merges(self, node: Node, name: str) -> bool:
        """Whether `name` is merged at `node`, and not copied from one of its sources."""
        return isinstance(node, Merge) and any(name in group.tensors for group in node.groups)

    @torch.inference_mode()
    def merge_into(self, node: Node, parameters: Mapping[str, Tensor]) -> None:
        """Write the merge into `parameters`, by name, in place and in their own dtype.

        Raises MergeError where a merged tensor is not finite, ValueError where a method refuses its parameters.
        """
        groups = _group_by_tensor(node)
        self._check_shapes(node, parameters)
        with compiling(self.compile_kernels):
            bundled: set[str] = set()
            for merge, group, names in self._bundles(node, parameters):
                pieces = torch.split(self._bundle(merge, group, names), [parameters[name].numel() for name in names])
                for name, piece in zip(names, pieces, strict=True):
                    parameters[name].copy_(piece.view_as(parameters[name]))
                bundled.update(names)
            rest = [name for name in parameters if name not in bundled]
            for name in self._stored.ahead(rest, self.adapters.read_whole(node)):
                parameter = parameters[name]
                merged = self._tensor(node, name, groups, parameter)
                if merged is not parameter:
                    parameter.copy_(merged)

    def _check_shapes(self, node: Node, parameters: Mapping[str, Tensor]) -> None:
        """ValueError for a parameter that has another shape than the merge: its numbers would come in another order."""
        shapes = self.shapes(node)
        for name, parameter in parameters.items():
            if name in shapes and tuple(parameter.shape) != tuple(shapes[name]):
                raise ValueError(
                    f"the model in memory has {name!r} in the shape {tuple(parameter.shape)}, the merge in "
                    f"{tuple(shapes[name])}; this architecture cannot be merged in place"
                )

    @torch.inference_mode()
    def tensor(self, node: Node, name: str) -> Tensor:
        """One merged tensor, in the type of the merge where it was merged and as stored where it was copied."""
        with compiling(self.compile_kernels):
            return self._tensor(node, name, _group_by_tensor(node))

    @torch.inference_mode()
    def tensors(self, node: Node, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Each of `names` with its merged tensor, one after the other, see `tensor`."""
        groups = _group_by_tensor(node)
        for name in self._stored.ahead(names, self.adapters.read_whole(node)):
            with compiling(self.compile_kernels):
                merged = self._tensor(node, name, groups)
            yield name, merged

    @torch.inference_mode()
    def probe(self, node: Node) -> None:
        """Merge the smallest tensor of each group, so that a method's complaint comes before any search."""
        for child in children(node):
            self.probe(child)
        if isinstance(node, Merge):
            self.adapters.check(node)
            shapes = self.shapes(node)
            groups = _group_by_tensor(node)
            for group in node.groups:
                if group.tensors:
                    smallest = min(group.tensors, key=lambda name: torch.Size(shapes[name]).numel())
                    self._tensor(node, smallest, groups)

    def _bundles(self, node: Node, parameters: Mapping[str, Tensor]) -> list[tuple[Merge, Group, tuple[str, ...]]]:
        """Groups whose tensors can be merged end to end as one: those of small models, by elementwise methods."""
        if not isinstance(node, Merge) or self.dtype is None:
            return []
        if self.adapters.checkpoints(node):
            return []
        elementwise = [group for group in node.groups if resolve(method_of(node, group)).elementwise]
        whole = [group for group in elementwise if not of_factors(node, group)]
        bundles = [(group, tuple(name for name in group.tensors if name in parameters)) for group in whole]
        return [
            (node, group, names) for group, names in bundles if 0 < sum(parameters[n].numel() for n in names) <= BUNDLE
        ]

    def _bundle(self, node: Merge, group: Group, names: tuple[str, ...]) -> Tensor:
        def flat(model: Node) -> Tensor:
            key = ("bundle", _key(model), *names)
            whole: Tensor = self._cache.kept(
                key, lambda: torch.cat([self._operand(model, n).reshape(-1) for n in names])
            )
            return whole

        base = flat(node.base) if node.base else None
        return self._apply(node, group, ", ".join(names), base, [flat(model) for model in node.models])

    def _tensor(self, node: Node, name: str, groups: Mapping[str, Group], out: Tensor | None = None) -> Tensor:
        if isinstance(node, Checkpoint):
            return self._stored.read(node.name, name)
        if isinstance(node, Stack):
            return plain_tensor(node, name, lambda source, at: self._operand(source, at, as_stored=True))
        group = groups.get(name)
        if group is None:
            return self._operand(node.base or node.models[0], name, as_stored=True)
        base = self._operand(node.base, name) if node.base else None
        if base is not None and (found := self.adapters.change(node, name, group)) is not None:
            merged = changed(base, *found, _usable(out, base.dtype))
            if not is_finite(merged):
                raise MergeError(_not_finite(node, group, name, group.parameters))
            return merged
        models = [self._operand(model, name) for model in node.models]
        if self.dtype is None:
            common = models[0].dtype
            for tensor in (*models, *((base,) if base is not None else ())):
                common = torch.promote_types(common, tensor.dtype)
            base, models = base.to(common) if base is not None else None, [model.to(common) for model in models]
        return self._apply(node, group, name, base, models, _usable(out, models[0].dtype))

    def _operand(self, node: Node, name: str, as_stored: bool = False) -> Tensor:
        """What a model below a merge has at `name`, in the type of the merge."""
        if not isinstance(node, Checkpoint):
            made = self._tensor(node, name, _group_by_tensor(node))
            stored_type = as_stored or self.dtype is None or not made.is_floating_point()
            return made if stored_type else made.to(self.dtype)  # layers of a path come as they are stored
        if as_stored or self.dtype is None:
            return self._stored.read(node.name, name)
        stored = self._stored.read(node.name, name)
        if stored.dtype == self.dtype or not stored.is_floating_point():
            return stored
        converted: Tensor = self._cache.kept(("converted", node.name, name), lambda: stored.to(self.dtype))
        return converted

    def _apply(
        self,
        node: Merge,
        group: Group,
        name: str,
        base: Tensor | None,
        models: Sequence[Tensor],
        out: Tensor | None = None,
    ) -> Tensor:
        method, given = resolve(method_of(node, group)), {**node.options, **group.parameters}
        parameters = given_parameters(method, node, group)
        found = found_of(self.statistics, method, node, name, given, self._cache, self.device)
        if turned := any(each is not None and each.transposed for each in found):
            base, models, out = base.T if base is not None else None, [model.T for model in models], None
        supplied = self._supply(method, node, name, base, models, given)
        if STATISTICS in method.supplied:
            supplied[STATISTICS] = tuple(each and each.values for each in found)
        if OUT in method.supplied:
            supplied[OUT] = out
        try:
            with largest_entry(self._largest(node, name)):
                merged = method.function(base, models, **parameters, **supplied)
        except NotFinite as reason:
            raise MergeError(_not_finite(node, group, name, given)) from reason
        if merged is not out and not is_finite(merged):  # what is written into `out` has been looked at
            raise MergeError(_not_finite(node, group, name, given))
        return merged.T.contiguous() if turned else merged

    def _supply(
        self, method: Method, node: Merge, name: str, base: Tensor | None, models: Sequence[Tensor], given: Plain
    ) -> dict[str, object]:
        """The parameters that the engine supplies, see `evohydra.merging.methods`."""
        supplied: dict[str, object] = {}
        if STREAMS in method.supplied:
            seed = int(given["mask_seed"])
            supplied[STREAMS] = tuple(stream_key(seed, name, _key(model)) for model in node.models)
        known = {**method.defaults, **given, **supplied}
        for parameter, provider in method.providers.items():
            wanted = {key: known[key] for key in asks(provider)}
            constants = repr(sorted((key, value) for key, value in wanted.items() if key not in method.providers))
            what = f"{provider.__module__}:{provider.__qualname__}"
            key = (what, name, _key(node.base), *map(_key, node.models), constants)
            made = functools.partial(provider, base, models, **wanted)
            known[parameter] = supplied[parameter] = self._cache.kept(key, made)
        return supplied

    def _largest(self, node: Merge, name: str) -> float | None:
        """The largest magnitude among the sources of one tensor; None where finding out would not pay."""
        sources = (*((node.base,) if node.base else ()), *node.models)
        if (
            self._cache.free <= 0
            or name not in self.shapes(node)
            or not all(isinstance(each, Checkpoint) for each in sources)
        ):
            return None
        found = [
            self._cache.kept(("largest", _key(each), name), functools.partial(self._peak, each, name))
            for each in sources
        ]
        return float(max(found))

    def _peak(self, node: Node, name: str) -> float:
        blocks = torch.split(self._operand(node, name).reshape(-1), PEAK_BLOCK)
        ends = [abs(float(end)) for block in blocks if block.numel() for end in block.aminmax()]
        return max(ends, default=0.0) if all(map(math.isfinite, ends)) else math.inf


def _usable(out: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """`out` where a merge in `dtype` can be written into it as it is."""
    return out if out is not None and out.dtype == dtype and out.is_contiguous() else None


def _not_finite(node: Merge, group: Group, name: str, given: Mapping[str, object]) -> str:
    return f"{name!r} of group {group.name!r} is not finite after {method_of(node, group)} with {dict(given)}"


def _group_by_tensor(node: Node) -> dict[str, Group]:
    return {name: group for group in node.groups for name in group.tensors} if isinstance(node, Merge) else {}


def _key(node: Node | None) -> str:
    """What tells one model of a recipe from another in caches and random streams."""
    if node is None:
        return ""
    return node.name if isinstance(node, Checkpoint) else digest(node)
