"""mergekit's passthrough over layers that are moved, repeated or left out, as a path through them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evohydra.checks.patterns import matches_whole
from evohydra.files import Plain
from evohydra.mergekit.settings import Settings, Slice
from evohydra.merging.checkpoints import TensorSource
from evohydra.recipe import Checkpoint, Group, Hop, LayerNames, Merge, Node, Parameter, Stack
from evohydra.spaces.grouping import EMBEDDINGS, Location


@dataclass(frozen=True)
class OneSource:
    """Layers `start` to `stop` of one model, which come next, with the settings of model and slice."""

    model: str
    start: int
    stop: int
    own: Mapping[str, object]
    of_slice: Mapping[str, object]


def one_source_each(slices: Sequence[Plain]) -> list[OneSource]:
    """The slices of a passthrough; ValueError where one has more than one source."""
    found = []
    for entry in slices:
        if len(entry["sources"]) > 1:
            named = [source["model"] for source in entry["sources"]]
            raise ValueError(f"slices: passthrough takes exactly 1 source, got {named}")
        (source,) = entry["sources"]
        start, stop = source["layer_range"]
        found.append(
            OneSource(source["model"], start, stop, source.get("parameters") or {}, entry.get("parameters") or {})
        )
    return found


def is_path(slices: Sequence[OneSource], depths: Mapping[str, int]) -> bool:
    """Whether layers are anywhere else than in their own model; ValueError for layers that a model has not."""
    for each in slices:
        if each.stop > depths[each.model]:
            raise ValueError(
                f"slices: layers {each.start} to {each.stop} of {each.model}, which has {depths[each.model]} layers"
            )
    ends = [0, *(each.stop for each in slices)]
    in_place = all(each.start == end for each, end in zip(slices, ends, strict=False))
    return not in_place or any(depth != ends[-1] for depth in depths.values())


def stack(
    config: Plain,
    slices: Sequence[OneSource],
    nodes: Mapping[str, Checkpoint],
    donor: Checkpoint,
    tensors: Mapping[str, TensorSource],
    locations: Mapping[str, Location | None],
    layout: LayerNames,
    edges_merged: bool = False,
) -> Stack:
    """The path, layer for layer as mergekit writes it.

    `nodes` are the models by reference, `donor` gives the configuration, `tensors` and `locations` are those of the
    first slice's model under common names. Embeddings are the first slice's, what comes behind the layers is the last
    one's, with `edges_merged` a merge in any case; scales are those at the names that tensors have in their model.
    """
    scales = _Scales(config, slices)
    names = next(iter(tensors.values())).shapes
    edges = [name for name in names if (at := locations.get(name)) is not None and at.layer is None]
    sources: list[Node] = [_edges(slices, nodes, donor, edges, locations, scales, edges_merged)]
    hops: list[Hop] = []
    for each in slices:
        inside: dict[float, list[str]] = {}
        for number in range(each.start, each.stop):
            for name in names:
                if name.startswith(f"{layout.layers}.{number}."):
                    inside.setdefault(scales.at(each, name, number - each.start), []).append(name)
            hops.append(Hop(len(sources), number))
        sources.append(_scaled(nodes[each.model], inside))
    return Stack(tuple(sources), tuple(hops), layout)


class _Scales:
    def __init__(self, config: Plain, slices: Sequence[OneSource]) -> None:
        self._config, self._slices = config, slices

    def at(self, each: OneSource, tensor: str, number: int | None) -> float:
        """The scale of a slice at a tensor of its layer `number`, counted from its first; None at an edge."""
        length = each.stop - each.start
        t = 0.0 if number is None else number / (length - 1) if length > 1 else 1.0
        place = Slice(each.start, each.stop, {each.model: each.own}, each.of_slice)
        settings = Settings(self._config, [each.model], tensor, place, t)
        return settings.scale(each.model)


def _edges(
    slices: Sequence[OneSource],
    nodes: Mapping[str, Checkpoint],
    donor: Checkpoint,
    edges: Sequence[str],
    locations: Mapping[str, Location | None],
    scales: _Scales,
    merged: bool,
) -> Node:
    """What is outside of layers: the first slice's model, or a merge that takes each tensor from where it is."""
    first, last = slices[0], slices[-1]
    models = tuple(dict.fromkeys([nodes[first.model], nodes[last.model], donor]))
    groups: dict[tuple[float, ...], list[str]] = {}
    for name in edges:
        location = locations[name]
        assert location is not None
        owner = first if location.module == EMBEDDINGS else last
        scale = scales.at(owner, name, None)
        weights = tuple(scale if model == nodes[owner.model] else 0.0 for model in models)
        groups.setdefault(weights, []).append(name)
    if not merged and len(models) == 1 and set(groups) <= {(1.0,)}:
        return models[0]
    return _linear(models, groups)


def _scaled(model: Checkpoint, by_scale: Mapping[float, Sequence[str]]) -> Node:
    return model if set(by_scale) <= {1.0} else _linear((model,), {(s,): names for s, names in by_scale.items()})


def _linear(models: tuple[Checkpoint, ...], groups: Mapping[tuple[float, ...], Sequence[str]]) -> Merge:
    def parameters(weights: tuple[float, ...]) -> dict[str, Parameter]:
        return {"weight": weights, "normalize": False}

    made = (Group(f"group {i}", tuple(names), parameters(w)) for i, (w, names) in enumerate(groups.items()))
    return Merge("linear", None, models, tuple(made), {"mask_seed": 0})


def plain_hops(
    config: Plain,
    slices: Sequence[OneSource],
    places: Mapping[str, int],
    names: Sequence[str],
    layout: LayerNames,
) -> tuple[Hop, ...]:
    """The stack as a path whose sources are the models as they are, by reference at `places`.

    `names` are the tensors of one of them. A scale of what ends a layer's MLP is that of the next hop (`Stack`), and
    there is no counterpart of other ones here: ValueError, with the slice.
    """
    scales = _Scales(config, slices)
    first = f"{layout.layers}.0."
    inside = [name.removeprefix(first) for name in names if name.startswith(first)]
    edges = [name for name in names if not name.startswith(f"{layout.layers}.")]
    scaled = {scales.at(each, name, None) for each in (slices[0], slices[-1]) for name in edges}
    hops: list[Hop] = []
    before = 1.0
    for each in slices:
        for number in range(each.start, each.stop):
            here = {rest: scales.at(each, f"{layout.layers}.{number}.{rest}", number - each.start) for rest in inside}
            ends = {scale for rest, scale in here.items() if matches_whole(layout.mlp, rest, "layout.mlp")}
            others = {s for rest, s in here.items() if not matches_whole(layout.mlp, rest, "layout.mlp")} | scaled
            if others != {1.0} or len(ends) != 1 or (layout.offset and ends != {1.0}):
                raise ValueError(
                    f"slices: layer {number} of {each.model} has scales that a path has no gene for: expected scales "
                    f"of the last matrix of MLPs alone, got {sorted({*ends, *others})}; without scales the stack can "
                    "be a start, and `python -m evohydra.rebuild` makes it as it is"
                )
            hops.append(Hop(places[each.model], number, before))
            before = ends.pop()
    if before != 1.0:
        raise ValueError("slices: the scale of the last layer has no hop behind it, expected 1")
    return tuple(hops)
