"""Data-flow space (arXiv 2403.13187, section 3.2): which layer of which source comes next, and how strongly."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from evohydra.checks import Count, Few
from evohydra.recipe import Checkpoint, Hop, LayerNames, Node, Stack
from evohydra.spaces.genes import Axis, Value
from evohydra.spaces.scales import Matrix, ScaleRange, Scales
from evohydra.spaces.slots import SKIPPED, START, TAKEN, Order, Slots

MERGED = "merged"  # the name of a merge that is one of the sources of a path
Scaling = Literal["branch", "stream"]  # recipe.SCALINGS
Place = Literal["first", "added", "added_first"]
Deviations = Annotated[float, Ge(-10), Le(10)]  # standard deviations: beyond, a slot is never taken or always
FAVOUR = {"layers": 2.0, "ends": -1.5, "others": -1.5}


class DataFlowSpace:
    """Paths through `models`, which have `layers` layers each; the model called `first`, or the first one, is A.

    A comes first among the sources and gives all that is outside of layers. Coordinates are one for each slot (see
    `slots.Slots`; taken above 0.5) and those of the `scales`, a class of `evohydra.spaces.scales`, from `low` to
    `high`; what a path does not visit changes nothing. `favour` says where a search begins, in standard deviations
    from the middle: A's `layers` in the first repetition, but for the first and the last one, which `ends` give
    already; and all `others`. `sources` names the models whose layers may be visited, None for all.

    `merged` is for `HybridSpace`: whether the merge takes the place of A (first), or is one more source after
    the others (added) or before them, as A (added_first).
    """

    def __init__(
        self,
        *,
        models: Sequence[Checkpoint],
        layers: Sequence[int],
        layout: LayerNames,
        repeats: Few = 3,
        order: Order = "sources",
        scales: Callable[..., Scales] = Matrix,
        low: float = 0.5,
        high: float = 1.5,
        log: bool = False,
        scaling: Scaling = "branch",
        first: str | None = None,
        sources: Sequence[str] | None = None,
        ends: bool = True,
        max_hops: Count | None = None,
        favour: Mapping[str, Deviations] | None = None,
        merged: Place = "first",
    ) -> None:
        if len(models) != len(layers):
            raise ValueError(f"expected a number of layers for each of {len(models)} models, got {list(layers)}")
        chosen = _chosen(models, layers, first, sources)
        self.merged = merged
        self._sources: tuple[Node, ...] = tuple(model for model, _ in chosen)
        names, depths = tuple(model.name for model, _ in chosen), tuple(depth for _, depth in chosen)
        self._options = {
            "layout": layout,
            "repeats": repeats,
            "order": order,
            "scales": scales,
            "low": low,
            "high": high,
            "log": log,
            "scaling": scaling,
            "ends": ends,
            "max_hops": max_hops,
            "favour": favour,
        }
        self._chosen = chosen
        self._slots = Slots(names, depths, repeats, ends, max_hops, order)
        self._layout, self._scaling = layout, scaling
        bounds = ScaleRange(low, high, log)
        if not callable(scales):
            raise ValueError(f"scales: expected a class of evohydra.spaces.scales (merge=dfs_slot ...), got {scales!r}")
        self._scales = scales(slots=self._slots, bounds=bounds)
        if self._scales.names:
            from evohydra.merging.path_tensors import why_not_plain  # loads torch

            if reason := why_not_plain(self._lowest(bounds)):
                raise ValueError(f"{reason}; got scaling={scaling} with low={low}")
        self.names = (*(self._slots.name(slot) for slot in range(self._slots.end)), *self._scales.names)
        self.axes: tuple[Axis, ...] = (*self._slot_axes(_favour(favour)), *self._scales.axes)

    def _lowest(self, bounds: ScaleRange) -> Stack:
        """A path with the lowest scale there is."""
        return Stack(self._sources, (Hop(0, 0), Hop(0, 0, bounds.low)), self._layout, self._scaling)

    def _slot_axes(self, favour: Mapping[str, float]) -> list[Axis]:
        favoured = [favour["others"]] * self._slots.end
        own = self._slots.own
        for number in own:
            given = self._slots.ends and number in (own[0], own[-1])
            favoured[number] = favour["ends" if given else "layers"]
        return [Axis("categorical", 2, each) for each in favoured]

    def decode(self, x: NDArray[np.float64]) -> Stack:
        """The recipe at `x`, (dim,), in the unit cube.

        The rule of the paper's author: layers `argwhere(params[:T] > 0) % M` between A's first and last one, scales
        `1 + params[T:]` as W[previous][current], with params of zero at 0.5; see `slots` and `scales`.
        """
        taken, rest = self._split(x)
        visits = self._slots.path(taken)
        scales = self._scales.decode(rest, visits)
        hops = [Hop(*self._slots.layers[v.layer], scale) for v, scale in zip(visits, scales, strict=True)]
        return Stack(self._sources, tuple(hops), self._layout, self._scaling)

    def values(self, x: NDArray[np.float64]) -> dict[str, Value]:
        """The slots on the path at `x`, (dim,), and the scales that bear on it, by name."""
        taken, rest = self._split(x)
        visits = self._slots.path(taken)
        on = {self.names[visit.slot]: True for visit in visits if START < visit.slot < self._slots.end}
        return {**on, **self._scales.values(rest, visits)}

    def _split(self, x: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        if x.shape != (len(self.names),):
            raise ValueError(f"expected a genome of shape ({len(self.names)},), got {x.shape}")
        return x[: self._slots.end] > 0.5, np.clip(x[self._slots.end :], 0.0, 1.0)

    def encode(self, node: Node) -> NDArray[np.float64]:
        """The point, (dim,), whose recipe is `node`, in the earliest slots; ValueError where this space has none."""
        if not isinstance(node, Stack) or node.sources != self._sources:
            raise ValueError("this space holds only paths through its own sources")
        if node.layout != self._layout or node.scaling != self._scaling:
            raise ValueError(f"this space holds only paths of its own layout with scaling={self._scaling}")
        if node.hops[0].scale != 1:
            raise ValueError(f"the scale of the first hop is 1 in this space, the recipe has {node.hops[0].scale}")
        visits = self._slots.find([(hop.source, hop.layer) for hop in node.hops])
        units = np.full(self._slots.end, SKIPPED)
        units[[visit.slot for visit in visits if START < visit.slot < self._slots.end]] = TAKEN
        return np.concatenate([units, self._scales.encode(visits, [hop.scale for hop in node.hops])])

    def known_merges(self) -> dict[str, Stack]:
        """A alone, where paths may be as long. The layers of another source with A's embeddings are not that source."""
        alone = self.alone()
        try:
            self.encode(alone)
        except ValueError:
            return {}
        return {self._slots.sources[0]: alone}

    def alone(self) -> Stack:
        """The path that is A: all of its layers in order."""
        hops = tuple(Hop(0, layer) for layer in range(self._slots.depths[0]))
        return Stack(self._sources, hops, self._layout, self._scaling)

    def default(self) -> Stack:
        """A alone, or the nearest to it that this space holds."""
        near = np.where(np.arange(len(self.names)) < self._slots.end, SKIPPED, 0.5)
        own = self._slots.own
        near[list(own[1:-1] if self._slots.ends else own)] = TAKEN
        return self.decode(near)

    def with_merge(self) -> "DataFlowSpace":
        """The same space with a stand-in called "merged" among its sources, where `merged` says."""
        if any(model.name == MERGED for model, _ in self._chosen):
            raise ValueError(f"a source called {MERGED!r} cannot be told from the merge: give it another name")
        stand_in = (Checkpoint(MERGED, f"{MERGED}://"), self._slots.depths[0])
        places = {
            "first": [stand_in, *self._chosen[1:]],
            "added": [*self._chosen, stand_in],
            "added_first": [stand_in, *self._chosen],
        }
        chosen = places[self.merged]
        options: dict[str, Any] = self._options
        return DataFlowSpace(models=[model for model, _ in chosen], layers=[depth for _, depth in chosen], **options)


def _chosen(
    models: Sequence[Checkpoint], layers: Sequence[int], first: str | None, sources: Sequence[str] | None
) -> list[tuple[Checkpoint, int]]:
    """The models that a path may visit with their depths, A before the others."""
    known = [model.name for model in models]
    if isinstance(sources, str) or (sources is not None and not isinstance(sources, Sequence)):
        raise ValueError(f"sources: expected a list of names, got {sources!r}")
    for option, names in (("first", [] if first is None else [first]), ("sources", sources or [])):
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"{option}: expected {', '.join(known)}, got {unknown[0]!r}")
    visited = set(sources or known) | ({first} if first else set())
    pairs = [(model, depth) for model, depth in zip(models, layers, strict=True) if model.name in visited]
    if not pairs:
        raise ValueError("a path needs one source or more, there is none")
    return sorted(pairs, key=lambda pair: first is not None and pair[0].name != first)  # stable: the others keep order


def _favour(given: Mapping[str, float] | None) -> dict[str, float]:
    unknown = sorted(set(given or {}) - set(FAVOUR))
    if unknown:
        raise ValueError(f"favour: expected the keys {', '.join(FAVOUR)}, got {', '.join(unknown)}")
    return {**FAVOUR, **(given or {})}


def with_source(path: Stack, place: int, source: Node) -> Stack:
    """The same path with `source` at `place` among its sources."""
    return replace(path, sources=(*path.sources[:place], source, *path.sources[place + 1 :]))
