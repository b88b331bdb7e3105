"""Scales of the hops of a path (arXiv 2403.13187, section 3.2): from a matrix, the slots, a small network, or none.

A hop's scale multiplies what enters it. The first hop's is 1. Each class here turns the coordinates of a genome that
are its own, (dim,), into a scale for each visit of a path, and says which of them bear on it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evohydra.checks import Few, Positive, check_fields
from evohydra.spaces.genes import Axis
from evohydra.spaces.slots import Slots, Visit

Coordinates = NDArray[np.float64]


@dataclass(frozen=True)
class ScaleRange:
    """Scales from `low` to `high`, with 1, which changes nothing, in the middle of the unit interval.

    On both sides of it they are linear or (`log`) logarithmic. Where 1 is also the middle of a linear range this is the
    paper's `scale = 1 + p`, p from -(high - 1) to high - 1.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        check_fields("merge.dataflow", self)
        if self.log and self.low <= 0:
            raise ValueError(f"scales: a logarithmic range needs low > 0, got low={self.low}")
        if not self.low < 1 < self.high:
            raise ValueError(f"scales: expected low < 1 < high, got low={self.low}, high={self.high}")

    def between(self, position: float) -> float:
        """The scale at `position` in [-1, 1]: low, 1 at 0, high."""
        end = self.high if position > 0 else self.low
        if abs(position) >= 1:
            return float(end)
        return float(end ** abs(position)) if self.log else 1 + abs(position) * (end - 1)

    def value(self, unit: float) -> float:
        """The scale at `unit` in [0, 1]."""
        return self.between(2 * unit - 1)

    def unit(self, scale: float) -> float:
        """The coordinate of `scale`; ValueError where it lies outside the range."""
        if not self.low <= scale <= self.high:
            raise ValueError(f"a scale of {scale} is outside [{self.low}, {self.high}]")
        end = self.high if scale > 1 else self.low
        part = math.log(scale) / math.log(end) if self.log else (scale - 1) / (end - 1)
        near = 0.5 + math.copysign(part / 2, scale - 1)
        # Rounding may miss the coordinate by some of its steps: the next ones are tried too.
        tries = (min(max(near + step * 2.0**-54, 0.0), 1.0) for n in range(64) for step in (n, -n))
        return next((unit for unit in tries if self.value(unit) == scale), near)


class Scales(Protocol):
    """One way to give each hop its scale; made with the slots and the range of scales."""

    names: tuple[str, ...]
    axes: tuple[Axis, ...]

    def decode(self, x: Coordinates, visits: Sequence[Visit]) -> list[float]:
        """The scale of each visit; the first is 1."""
        ...

    def values(self, x: Coordinates, visits: Sequence[Visit]) -> dict[str, float]:
        """The genes that bear on this path, by name."""
        ...

    def encode(self, visits: Sequence[Visit], scales: Sequence[float]) -> Coordinates:
        """The coordinates that give these scales, the first of which is 1; ValueError where there are none."""
        ...


class _Table:
    """Scales that are genes themselves, found by position."""

    def __init__(self, names: Sequence[str], bounds: ScaleRange) -> None:
        self.names = tuple(names)
        self.axes = (Axis(),) * len(self.names)
        self._bounds = bounds

    def positions(self, visits: Sequence[Visit]) -> list[int]:
        """The gene of each visit but the first."""
        raise NotImplementedError

    def decode(self, x: Coordinates, visits: Sequence[Visit]) -> list[float]:
        """The scale of each visit; the first is 1."""
        return [1.0, *(self._bounds.value(float(x[at])) for at in self.positions(visits))]

    def values(self, x: Coordinates, visits: Sequence[Visit]) -> dict[str, float]:
        """The genes that bear on this path, by name."""
        return {self.names[at]: self._bounds.value(float(x[at])) for at in self.positions(visits)}

    def encode(self, visits: Sequence[Visit], scales: Sequence[float]) -> Coordinates:
        """The coordinates that give these scales; ValueError where one gene would need two values."""
        x = np.full(len(self.names), 0.5)
        given: dict[int, float] = {}
        for at, scale in zip(self.positions(visits), scales[1:], strict=True):
            if given.setdefault(at, scale) != scale:
                raise ValueError(f"{self.names[at]} would need to be both {given[at]} and {scale}")
            x[at] = self._bounds.unit(scale)
        return x


class Matrix(_Table):
    """The paper's W, M x M: W[i][j] scales the input of layer j that comes from layer i."""

    def __init__(self, *, slots: Slots, bounds: ScaleRange) -> None:
        self._layers = len(slots.layers)
        layers = [slots.layer_name(layer) for layer in range(self._layers)]
        super().__init__([f"scale/{previous}/{current}" for previous in layers for current in layers], bounds)

    def positions(self, visits: Sequence[Visit]) -> list[int]:
        """Row: the layer before; column: the layer."""
        return [a.layer * self._layers + b.layer for a, b in pairwise(visits)]


class Slot(_Table):
    """A gene for each slot, and one for the end of the path where that is no slot."""

    def __init__(self, *, slots: Slots, bounds: ScaleRange) -> None:
        names = [f"scale/{slots.name(slot)}" for slot in range(slots.end)]
        super().__init__([*names, *(["scale/end"] if slots.ends else [])], bounds)

    def positions(self, visits: Sequence[Visit]) -> list[int]:
        """The slot itself."""
        return [visit.slot for visit in visits[1:]]


class Network:
    """The paper's pi(i, j, t) for large M: a network of one hidden layer, whose weights are the genes.

    Its inputs are, for the layer before and for the layer, which source it is of (one-hot) and how deep in it (-1 to
    1), and how far in the path it comes (t / T); its output o gives the scale at tanh(o) of the range, so weights of
    zero give 1. Weights go from -`reach` to `reach`; what exactly pi is, the paper leaves open.
    """

    def __init__(self, *, slots: Slots, bounds: ScaleRange, hidden: Few = 4, reach: Positive = 2.0) -> None:
        self._bounds, self._hidden, self._reach = bounds, hidden, float(reach)
        self._features = [_features(slots, layer) for layer in range(len(slots.layers))]
        self._length = slots.end + 1
        inputs = 2 * len(self._features[0]) + 2  # t and the bias
        self._shapes = (hidden, inputs), (hidden + 1,)
        first = [f"scale/network/hidden.{unit}/{at}" for unit in range(hidden) for at in range(inputs)]
        self.names = (*first, *(f"scale/network/output/{at}" for at in range(hidden + 1)))
        self.axes = (Axis(),) * len(self.names)

    def decode(self, x: Coordinates, visits: Sequence[Visit]) -> list[float]:
        """The scale of each visit; the first is 1."""
        weights = (2 * x - 1) * self._reach
        first, output = (weights[: -self._hidden - 1].reshape(self._shapes[0]), weights[-self._hidden - 1 :])
        scales = [1.0]
        for t, (a, b) in enumerate(pairwise(visits), start=1):
            inputs = [*self._features[a.layer], *self._features[b.layer], t / self._length, 1.0]
            # Sums in a fixed order: the same scale, to the last bit, whatever the BLAS.
            units = [math.tanh(_dot(row, inputs)) for row in first]
            scales.append(self._bounds.between(math.tanh(_dot(output, [*units, 1.0]))))
        return scales

    def values(self, x: Coordinates, visits: Sequence[Visit]) -> dict[str, float]:
        """All weights: all of them bear on every path of two hops or more."""
        weights = (2 * x - 1) * self._reach
        return dict(zip(self.names, map(float, weights), strict=True)) if len(visits) > 1 else {}

    def encode(self, visits: Sequence[Visit], scales: Sequence[float]) -> Coordinates:
        """Weights of zero; ValueError for other scales than 1, for which there may be no weights."""
        if any(scale != 1 for scale in scales):
            raise ValueError("scales of a network can be found again only where all of them are 1")
        return np.full(len(self.names), 0.5)


class Ones:
    """No scales: each is 1."""

    def __init__(self, *, slots: Slots, bounds: ScaleRange) -> None:
        self.names: tuple[str, ...] = ()
        self.axes: tuple[Axis, ...] = ()

    def decode(self, x: Coordinates, visits: Sequence[Visit]) -> list[float]:
        """The scale of each visit."""
        return [1.0] * len(visits)

    def values(self, x: Coordinates, visits: Sequence[Visit]) -> dict[str, float]:
        """Nothing."""
        return {}

    def encode(self, visits: Sequence[Visit], scales: Sequence[float]) -> Coordinates:
        """No coordinates; ValueError for other scales than 1."""
        if any(scale != 1 for scale in scales):
            raise ValueError("this space has no scales but 1")
        return np.empty(0)


def _features(slots: Slots, layer: int) -> list[float]:
    source, number = slots.layers[layer]
    deep = 2 * number / max(1, slots.depths[source] - 1) - 1
    return [*(float(source == other) for other in range(len(slots.sources))), deep]


def _dot(weights: Coordinates, inputs: Sequence[float]) -> float:
    return sum(float(weight) * value for weight, value in zip(weights, inputs, strict=True))
