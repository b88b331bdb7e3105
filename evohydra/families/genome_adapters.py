"""Genomes that are run as adapters of the base and not merged: what of a merge is factors, and what is not."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch

from evohydra.merging.engine import Engine, MergeError
from evohydra.merging.low_rank import LowRank
from evohydra.recipe import Checkpoint, Group, Merge

WANTED = "backend.genomes=adapters"
INSTEAD = "backend.genomes=merged scores all"


@runtime_checkable
class RunsAdapters(Protocol):
    """A live model that can run merges of adapters without merging them.

    runs_adapters: whether it was asked to.
    """

    runs_adapters: bool

    def become_adapter(self, node: Merge, engine: Engine, ahead: Sequence[Merge] = ()) -> None:
        """Make it the base with the adapter that `node` is; raises as `LiveModel.become` does.

        ahead: merges that come next, in this order, and are asked the same.
        """
        ...


def sum_of(base: Checkpoint, models: Iterable[Checkpoint], engine: Engine) -> Merge:
    """The sum of the base and all its adapters' changes: of what genomes change it has everything."""
    sources = tuple(models)
    group = Group("all", tuple(engine.shapes(base)), {"weight": (1.0,) * len(sources)})
    return Merge("task_arithmetic", base, sources, (group,))


def doubled(group: Group) -> Group:
    """With twice the weights: a base that is multiplied by 1 then as well is so whatever the weights are."""
    weight = group.parameters.get("weight")
    twice = tuple(2 * each for each in weight) if isinstance(weight, tuple) else weight
    return group if twice is None else replace(group, parameters={**group.parameters, "weight": twice})


def parted(node: Merge, engine: Engine) -> tuple[dict[str, LowRank], tuple[str, ...]]:
    """What `node` adds to the base, by the names of tensors, and the tensors that are not the base plus factors.

    ValueError for a merge that is no sum of the base and adapters.
    """
    changes, whole = {}, []
    for group in node.groups:
        for name in group.tensors:
            found = engine.adapters.change(node, name, group)
            if found is None:
                whole.append(name)
                continue
            of_base, change = found
            if of_base != 1:
                raise ValueError(f"{WANTED}: {name!r} is {of_base:g} times the base's and no adapter of it; {INSTEAD}")
            if change is not None:
                changes[name] = change
    return changes, tuple(whole)


def check_finite(node: Merge, changes: dict[str, LowRank]) -> None:
    """MergeError for the first tensor whose change is not finite; one look at the device for all."""
    if not changes:
        return
    ends = [torch.stack([change.up.abs().amax(), change.down.abs().amax()]) for change in changes.values()]
    largest = torch.stack(ends).isfinite().all(dim=1).tolist()
    for name, finite in zip(changes, largest, strict=True):
        if not finite:
            raise MergeError(f"{name!r} is not finite after {node.method}, as an adapter")
