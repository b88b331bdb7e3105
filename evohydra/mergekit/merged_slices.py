"""Slices that are merges of their own, at any place: a path through the layers of one merge for each slice."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from evohydra.files import Plain
from evohydra.mergekit.pieces import Piece, Range
from evohydra.mergekit.settings import Settings, Slice
from evohydra.mergekit.writer import INPUT, METHODS
from evohydra.recipe import Checkpoint, Group, Hop, LayerNames, Merge, Node, Parameter, Stack
from evohydra.spaces.grouping import EMBEDDINGS, Location

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MergedSlices:
    """The merges of slices; `nodes` are the models by reference, `locations` says where each tensor sits.

    Tensors without a place are those of the first model.
    """

    config: Plain
    pieces: Sequence[Piece]
    nodes: Mapping[str, Checkpoint]
    locations: Mapping[str, Location | None]
    layout: LayerNames

    def stack(self, donor: Checkpoint) -> Stack:
        """The path, layer for layer as mergekit writes it; `donor` gives the configuration.

        Embeddings are the first slice's merge, what comes behind the layers is the last one's.
        """
        sources: list[Node] = [self._edges(donor)]
        hops: list[Hop] = []
        for piece in self.pieces:
            start, stop = piece.layers
            groups: dict[str, tuple[dict[str, Parameter], list[str]]] = {}
            for number in range(start, stop):
                for name in self._names(number):
                    written = self._numbered(name, len(hops))
                    parameters = self._parameters(piece, name, number - start, written)
                    groups.setdefault(repr(sorted(parameters.items())), (parameters, []))[1].append(name)
                hops.append(Hop(len(sources), number))
            sources.append(self._merge(piece, groups.values(), self._in_line(piece)))
        return Stack(tuple(sources), tuple(hops), self.layout)

    def _in_line(self, piece: Piece) -> Mapping[str, Node]:
        """The models of a piece; those with layers of other numbers than the first one's with these in their places."""
        if not piece.moved:
            return self.nodes
        assert piece.ranges is not None
        if piece.base is not None and piece.base not in piece.ranges:
            raise ValueError(
                f"slices: expected the base {piece.base} among the sources of a slice with other layers of each, where "
                f"it has layers too, got {sorted(piece.ranges)}"
            )
        return {model: self._with_layers(model, piece.layers, layers) for model, layers in piece.ranges.items()}

    def _with_layers(self, model: str, places: Range, layers: Range) -> Node:
        """A model with its `layers` at `places`, and all others where they are."""
        node = self.nodes[model]
        if layers == places:
            return node
        depth = 1 + max(at.layer for at in self.locations.values() if at is not None and at.layer is not None)
        moved = dict(zip(range(*places), range(*layers), strict=True))
        return Stack((node,), tuple(Hop(0, moved.get(number, number)) for number in range(depth)), self.layout)

    def _numbered(self, name: str, layer: int) -> str:
        """The name of a layer's tensor in layer number `layer`."""
        place = self.locations[name]
        assert place is not None
        return name.replace(f"{self.layout.layers}.{place.layer}.", f"{self.layout.layers}.{layer}.", 1)

    def _names(self, layer: int | None) -> list[str]:
        return [name for name, at in self.locations.items() if at is not None and at.layer == layer]

    def _parameters(self, piece: Piece, tensor: str, number: int | None, written: str) -> dict[str, Parameter]:
        start, stop = piece.layers
        length = stop - start
        t = 0.0 if number is None else number / (length - 1) if length > 1 else 1.0
        at = Slice(start, stop, piece.sources, piece.parameters)
        method = str(self.config["merge_method"])
        elsewhere = {
            model: self._numbered(tensor, first + number)
            for model, (first, _) in (piece.ranges or {}).items()
            if number is not None
        }
        settings = Settings(self.config, piece.models, tensor, at, t, written, elsewhere)
        return settings.parameters(method, METHODS[method])

    def _merge(
        self,
        piece: Piece,
        groups: Collection[tuple[Mapping[str, Parameter], list[str]]],
        nodes: Mapping[str, Node],
    ) -> Merge:
        counterpart = METHODS[str(self.config["merge_method"])]
        takes_base = piece.base is not None and piece.base not in piece.models
        return Merge(
            method=counterpart.method,
            base=nodes[piece.base] if takes_base and piece.base is not None else None,
            models=tuple(nodes[model] for model in piece.models),
            groups=tuple(Group(f"group {i}", tuple(names), p) for i, (p, names) in enumerate(groups)),
            options={"mask_seed": 0},
        )

    def _edges(self, donor: Checkpoint) -> Merge:
        first, last = self.pieces[0], self._last()
        ends = [name for name in self._names(None) if self._of(name).module != EMBEDDINGS]
        starts = [name for name in self._names(None) if self._of(name).module == EMBEDDINGS]
        merged = [self._edge(first, starts), self._edge(last, ends)]
        # Each tensor is one of the two: a product with 1, and nothing is added but products with 0.
        weights = ((starts, (1.0, 0.0, 0.0)), (ends, (0.0, 1.0, 0.0)))
        groups = (Group(f"group {i}", tuple(names), _as_it_is(w)) for i, (names, w) in enumerate(weights) if names)
        return Merge("linear", None, (*merged, donor), tuple(groups), {"mask_seed": 0})

    def _last(self) -> Piece:
        """The last slice as mergekit takes it behind the layers: with as many sources as the first one has."""
        first, last = self.pieces[0], self.pieces[-1]
        kept = list(last.sources)[: len(first.sources)]
        left_out = [model for model in last.sources if model not in kept]
        if not left_out:
            return last
        models = tuple(model for model in last.models if model in kept)
        if not models or (METHODS[str(self.config["merge_method"])].base != INPUT and last.base not in kept):
            raise ValueError(
                f"slices: mergekit leaves {left_out} out behind the last layer, for the first slice has fewer sources, "
                "and what is left lacks a base or a model; expected as many sources in the first slice as in the last"
            )
        logger.warning(
            "slices: the first has fewer sources than the last; as in mergekit, %s take no part behind the last layer",
            left_out,
        )
        return replace(last, models=models)

    def _edge(self, piece: Piece, names: Sequence[str]) -> Merge:
        groups: dict[str, tuple[dict[str, Parameter], list[str]]] = {}
        for name in names:
            parameters = self._parameters(piece, name, None, name)
            groups.setdefault(repr(sorted(parameters.items())), (parameters, []))[1].append(name)
        return self._merge(piece, groups.values(), self.nodes)

    def _of(self, name: str) -> Location:
        location = self.locations[name]
        assert location is not None
        return location


def _as_it_is(weights: tuple[float, ...]) -> dict[str, Parameter]:
    return {"weight": weights, "normalize": False}
