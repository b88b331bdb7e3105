"""Merges of adapters of one base that are an adapter themselves: by linear methods, and of their factors."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from evohydra.merging.cache import Cache
from evohydra.merging.checkpoints import TensorSource
from evohydra.merging.factor_merges import Apply, check_ranks, merged_factors, of_factors
from evohydra.merging.group_methods import method_of, methods_of
from evohydra.merging.low_rank import Beside, Factored, LowRank, beside, factors_of
from evohydra.merging.methods import Method, resolve
from evohydra.recipe import Checkpoint, Group, Merge, Node, Parameter, checkpoints, children


class AdapterMerges:
    """What merges of adapters are by their factors; the cache keeps these for the next genome.

    `wanted`: linear methods are to be so, too. `apply` merges factors as tensors, see `merged_factors`.
    """

    def __init__(
        self, sources: Mapping[str, TensorSource], device: torch.device, cache: Cache, wanted: bool, apply: Apply
    ) -> None:
        self.wanted = wanted
        self._sources, self._device, self._cache, self._apply = sources, device, cache, apply

    def checkpoints(self, node: Node) -> tuple[Checkpoint, ...]:
        """The base and the adapters of a merge that is an adapter, too; none for all other recipes."""
        if not isinstance(node, Merge):
            return ()
        factors = bool(node.groups) and all(of_factors(node, each) for each in node.groups)
        return self._base_and_adapters(node) if factors or self._linear(node) else ()

    def _base_and_adapters(self, node: Merge) -> tuple[Checkpoint, ...]:
        if not isinstance(node.base, Checkpoint) or node.base.adapter:
            return ()
        adapters = tuple(model for model in node.models if isinstance(model, Checkpoint) and self._is_adapter(model))
        return (node.base, *adapters) if len(adapters) == len(node.models) else ()

    def _linear(self, node: Merge) -> bool:
        return self.wanted and all(resolve(each).coefficients is not None for each in methods_of(node))

    def check(self, node: Merge) -> None:
        """ValueError where factors are to be merged of models that have none, or factors of several ranks."""
        names = [each.name for each in self._base_and_adapters(node)]
        for group in node.groups:
            if not of_factors(node, group):
                continue
            if not names:
                others = ", ".join(each.name if isinstance(each, Checkpoint) else "a recipe" for each in node.models)
                raise ValueError(
                    "of=factors: expected adapters of the base as sources and nothing else, and no mixture of experts "
                    f"(whose sources have no factors), got {others}"
                )
            if resolve(method := method_of(node, group)).reads:
                raise ValueError(f"of=factors: {method} weighs inputs of layers, which factors are not")
            for tensor in group.tensors:
                if (together := self._beside(names, tensor)) is not None:
                    check_ranks(names[1:], together, tensor)

    def _is_adapter(self, model: Checkpoint) -> bool:
        return model.adapter is not None and isinstance(self._sources[model.name], Factored)

    def used(self, node: Node) -> bool:
        """Whether `node`, or a merge below it, is one of adapters."""
        return bool(self.checkpoints(node)) or any(map(self.used, children(node)))

    def read_whole(self, node: Node) -> list[str]:
        """The names of the checkpoints whose tensors are all read: of a merge of adapters only the base."""
        return sorted({each.name for each in self.checkpoints(node)[:1] or checkpoints(node)})

    def change(self, node: Node, name: str, group: Group) -> tuple[float, LowRank | None] | None:
        """By what the base's tensor is multiplied, and what is added to it; None where `node` is no such merge.

        So for single tensors that an adapter was not trained on by factors (a head that was trained whole).
        """
        if not isinstance(node, Merge) or not (names := [each.name for each in self._base_and_adapters(node)]):
            return None
        factors = of_factors(node, group)
        if not factors and not self.checkpoints(node):
            return None

        together = self._beside(names, name)
        if together is None:
            return None
        if factors:
            return 1.0, merged_factors(node, group, name, together, self._apply)
        of_base, of_models = coefficients(node, group)
        return of_base, together.weighed(of_models)

    def _beside(self, names: Sequence[str], tensor: str) -> Beside | None:
        """What the adapters `names[1:]` make of a tensor of the base `names[0]`."""

        def made() -> Beside | None:
            base, *models = [factors_of(self._sources[each], tensor) for each in names]
            return beside(base, models, self._device)

        found: Beside | None = self._cache.kept(("beside", tensor, *names), made)
        return found


def coefficients(node: Merge, group: Group) -> tuple[float, list[float]]:
    """By what the base and the adapters' changes are multiplied in a group; ValueError as from the method."""
    method = resolve(method_of(node, group))
    assert method.coefficients is not None
    return method.coefficients(len(node.models), **{**method.defaults, **given_parameters(method, node, group)})


def given_parameters(method: Method, node: Merge, group: Group) -> dict[str, Parameter]:
    """The parameters of the method that the recipe gives for a group; ValueError where one is missing."""
    given = {**node.options, **group.parameters}
    if missing := sorted(method.required - given.keys()):
        chosen = method_of(node, group)
        raise ValueError(f"{chosen} needs {missing} for group {group.name!r}, the recipe gives {sorted(given)}")
    return {key: value for key, value in given.items() if key in method.parameters}


def changed(base: Tensor, of_base: float, change: LowRank | None, out: Tensor | None = None) -> Tensor:
    """of_base * base + change in the type of `base`, rounded once; maybe in `out`, see `LowRank.added_to`."""
    if change is not None:
        return change.added_to(base, of_base, out)
    return base if of_base == 1 else (base.float() * of_base).to(base.dtype)
