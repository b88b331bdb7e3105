"""Which tensors share their genes: the granularity of a parameter-space search."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from evohydra.checks import Count, check_fields
from evohydra.checks.patterns import check_pattern, found_in

EMBEDDINGS, HEAD = "embeddings", "head"


@dataclass(frozen=True)
class Location:
    """Where in a model a tensor sits: in layer `layer` (0-based) as part of `module`, or at an edge of the model.

    `module` is attention, mlp or norms inside a layer; embeddings or head at the edges, where `layer` is None. `block`:
    what such a layer is called where it has no plain number. `presets`: its group in each grouping that is known for
    models of its kind.
    """

    module: str
    layer: int | None = None
    block: str | None = None
    presets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Granularity:
    """How tensors are grouped.

    layers: "whole" (one group), "each", or a number of blocks of consecutive layers.
    modules: attention, MLP and norms of each group of layers apart.
    edges: embeddings, and head with the final norm, are groups of their own; else they join the nearest layers.
    preset: a grouping that is known for the kind of model, instead of layers, modules and edges.
    filters: name -> regular expression; a tensor whose name it finds joins that group instead, first match first.
    """

    layers: Literal["whole", "each"] | Count = "each"
    modules: bool = False
    edges: bool = True
    preset: str | None = None
    filters: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        check_fields("granularity", self)
        for name, pattern in (self.filters or {}).items():
            if name in (EMBEDDINGS, HEAD, "layers", "model") or name.startswith("layers."):
                raise ValueError(f"granularity.filters.{name}: this is the name of another group, choose a new one")
            check_pattern(pattern, f"granularity.filters.{name}")

    def group(self, locations: Mapping[str, Location | None]) -> dict[str, tuple[str, ...]]:
        """Group name -> its tensors, in the order of the model; tensors with location None belong to no group."""
        depth = 1 + max((at.layer for at in locations.values() if at and at.layer is not None), default=-1)
        if isinstance(self.layers, int) and self.layers > depth:
            raise ValueError(f"granularity.layers: {self.layers} blocks, but the model has {depth} layers")
        known = {preset: None for at in locations.values() if at for preset in at.presets}
        if self.preset is not None and self.preset not in known:
            raise ValueError(
                f"granularity.preset: expected null{''.join(f' or {each}' for each in known)} for these models, got "
                f"{self.preset!r}"
            )
        taken = {at.presets[self.preset] for at in locations.values() if at} if self.preset else set()
        if clash := sorted(taken & set(self.filters or {})):
            raise ValueError(f"granularity.filters: {clash} are groups of preset={self.preset}, choose new names")
        groups: dict[str, list[str]] = {}
        for tensor, location in sorted(locations.items(), key=lambda item: _order(item[0], item[1], depth)):
            if location is not None:
                groups.setdefault(self._name(tensor, location, depth), []).append(tensor)
        for name, pattern in (self.filters or {}).items():
            if name not in groups:
                raise ValueError(f"granularity.filters.{name}: {pattern!r} matches no tensor")
        return {name: tuple(tensors) for name, tensors in groups.items()}

    def _name(self, tensor: str, location: Location, depth: int) -> str:
        for name, pattern in (self.filters or {}).items():
            if found_in(pattern, tensor, f"granularity.filters.{name}"):
                return name
        if self.preset is not None:
            return location.presets[self.preset]
        layer = location.layer
        if layer is None:
            if self.edges:
                return location.module
            layer = 0 if location.module == EMBEDDINGS else depth - 1
        own = location.block if self.layers == "each" and location.layer is not None else None
        name = own or self._block(layer, depth)
        return f"{name}.{location.module}" if self.modules and location.layer is not None else name

    def _block(self, layer: int, depth: int) -> str:
        if self.layers == "whole":
            return "layers" if self.edges else "model"
        if self.layers == "each":
            return f"layers.{layer}"
        blocks = int(self.layers)
        block = layer * blocks // depth
        members = [i for i in range(depth) if i * blocks // depth == block]
        return f"layers.{members[0]}-{members[-1]}" if len(members) > 1 else f"layers.{members[0]}"


def _order(tensor: str, location: Location | None, depth: int) -> tuple[int, str]:
    if location is None or location.layer is None:
        return (-1 if location and location.module == EMBEDDINGS else depth, tensor)
    return (location.layer, tensor)
