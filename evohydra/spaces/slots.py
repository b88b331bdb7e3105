"""The slots of a path: all layers of all sources in order, again and again, each taken or skipped."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evohydra.checks import Count, Few, check_fields

Order = Literal["sources", "layers"]
TAKEN, SKIPPED = 0.75, 0.25  # the middles of their shares of the unit interval


@dataclass(frozen=True)
class Visit:
    """One step of a path. slot: which one was taken, or `START` or `Slots.end`; layer: its number among all layers."""

    slot: int
    layer: int


START = -1  # the slot of a first layer that is no gene


@dataclass(frozen=True)
class Slots:
    """The M layers of `sources`, `depths` of them each, `repeats` times: T = M * repeats slots.

    order: of the M layers: by "sources", all of one before all of the next, or by "layers", all first ones of each
    source before all second ones, those of the first source last: a path then goes from one source to another and on
    in one repetition, and through another source's layer into the first one's of the same number.
    ends: a path starts with the first layer of the first source and ends with its last one, whatever is taken.
    max_hops: the longest path; None: any.
    """

    sources: tuple[str, ...]
    depths: tuple[int, ...]
    repeats: Few
    ends: bool = True
    max_hops: Count | None = None
    order: Order = "sources"

    def __post_init__(self) -> None:
        if not self.sources or len(self.sources) != len(self.depths):
            raise ValueError(f"expected one source or more, a depth for each: {self.sources} and {self.depths}")
        if len(set(self.sources)) != len(self.sources):
            raise ValueError(f"sources of a path need different names, got {list(self.sources)}")
        for name, depth in zip(self.sources, self.depths, strict=True):
            if depth < 1:
                raise ValueError(f"source {name!r}: a path needs layers, it has {depth}")
        check_fields("merge.dataflow", self)
        if self.ends and self.max_hops == 1:
            raise ValueError(
                "merge.dataflow.max_hops: expected null or 2 or more: the ends of the path take two, got 1"
            )

    @cached_property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """(source, layer) of each of the M layers, in order."""
        every = [(source, layer) for source, depth in enumerate(self.depths) for layer in range(depth)]
        if self.order == "layers":
            every.sort(key=lambda place: (place[1], place[0] == 0, place[0]))
        return tuple(every)

    @cached_property
    def own(self) -> tuple[int, ...]:
        """The numbers, among the M, of the layers of the first source."""
        return tuple(self.layers.index((0, layer)) for layer in range(self.depths[0]))

    @property
    def end(self) -> int:
        """T: how many slots there are, and the slot of a last layer that is no gene."""
        return len(self.layers) * self.repeats

    def layer_name(self, layer: int) -> str:
        """Such as "shisa.3"."""
        source, number = self.layers[layer]
        return f"{self.sources[source]}.{number}"

    def name(self, slot: int) -> str:
        """Such as "path.0/shisa.3": of a slot in the first repetition."""
        repetition, layer = divmod(slot, len(self.layers))
        return f"path.{repetition}/{self.layer_name(layer)}"

    def path(self, taken: NDArray[np.bool_]) -> tuple[Visit, ...]:
        """The path through the slots that are `taken`, (T,).

        Beyond `max_hops` slots are dropped, the last ones first; ends stay. A path of nothing is the first source's
        first layer, as if its slot were taken.
        """
        between = [Visit(int(slot), int(slot) % len(self.layers)) for slot in np.flatnonzero(taken)]
        if not self.ends:
            return tuple(between[: self.max_hops]) or (Visit(self.own[0], self.own[0]),)
        room = None if self.max_hops is None else self.max_hops - 2
        return (Visit(START, self.own[0]), *between[:room], Visit(self.end, self.own[-1]))

    def find(self, layers: Sequence[tuple[int, int]]) -> tuple[Visit, ...]:
        """The path that visits these (source, layer), in the earliest slots; ValueError where these slots have none."""
        if self.max_hops is not None and len(layers) > self.max_hops:
            raise ValueError(f"the path has {len(layers)} hops, max_hops is {self.max_hops}")
        numbers = {place: number for number, place in enumerate(self.layers)}
        unknown = [place for place in layers if place not in numbers]
        if unknown:
            raise ValueError(f"there is no layer {unknown[0][1]} of source {unknown[0][0]}")
        wanted = [numbers[place] for place in layers]
        if not self.ends:
            return tuple(self._earliest(wanted))
        ends = (self.own[0], self.own[-1])
        if len(wanted) < 2 or (wanted[0], wanted[-1]) != ends:
            last = self.depths[0] - 1
            raise ValueError(f"with ends kept, a path goes from layer 0 to layer {last} of {self.sources[0]}")
        return (Visit(START, ends[0]), *self._earliest(wanted[1:-1]), Visit(self.end, ends[1]))

    def _earliest(self, wanted: Sequence[int]) -> list[Visit]:
        visits: list[Visit] = []
        slot = -1
        for layer in wanted:
            slot += 1 + (layer - slot - 1) % len(self.layers)
            if slot >= self.end:
                raise ValueError(f"repeats: the path needs more than {self.repeats}")
            visits.append(Visit(slot, layer))
        return visits
