"""Merges of adapters of one base by methods that are linear in task vectors: a genome is an adapter itself."""

from collections.abc import Mapping

import torch
from torch import Tensor

from evohydra.merging.cache import Cache
from evohydra.merging.checkpoints import TensorSource
from evohydra.merging.group_methods import method_of, methods_of
from evohydra.merging.low_rank import Beside, Factored, LowRank, beside, factors_of
from evohydra.merging.methods import Method, resolve
from evohydra.recipe import Checkpoint, Group, Merge, Node, Parameter, checkpoints, children


class AdapterMerges:
    """What merges of adapters are by their factors, if that is `wanted`; the cache keeps these for the next genome."""

    def __init__(
        self, sources: Mapping[str, TensorSource], device: torch.device, cache: Cache, wanted: bool = True
    ) -> None:
        self.wanted = wanted
        self._sources, self._device, self._cache = sources, device, cache

    def checkpoints(self, node: Node) -> tuple[Checkpoint, ...]:
        """The base and the adapters of a merge that is linear in the adapters' changes; none for all other recipes."""
        if not self.wanted or not isinstance(node, Merge) or not isinstance(node.base, Checkpoint) or node.base.adapter:
            return ()
        adapters = tuple(model for model in node.models if isinstance(model, Checkpoint) and self._is_adapter(model))
        if len(adapters) < len(node.models) or any(resolve(each).coefficients is None for each in methods_of(node)):
            return ()
        return (node.base, *adapters)

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
        if not isinstance(node, Merge) or not (names := [each.name for each in self.checkpoints(node)]):
            return None

        def made() -> Beside | None:
            base, *models = [factors_of(self._sources[each], name) for each in names]
            return beside(base, models, self._device)

        together: Beside | None = self._cache.kept(("beside", name, *names), made)
        if together is None:
            return None
        of_base, of_models = coefficients(node, group)
        return of_base, together.weighed(of_models)


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
