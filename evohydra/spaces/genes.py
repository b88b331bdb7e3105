"""Genes: a coordinate of the unit interval stands for a real, an integer or a choice; several for a simplex."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["continuous", "integer", "categorical"]
Value = float | int | bool | str


@dataclass(frozen=True)
class Axis:
    """A coordinate of a search space, as an optimizer sees it.

    levels: of an integer or categorical coordinate, which share the unit interval equally. favoured: where a search may
    begin, in standard deviations of its first samples from the middle of the interval. begins: the part of the interval
    in which a search begins that can widen its ranges.
    """

    kind: Kind = "continuous"
    levels: int = 0
    favoured: float = 0.0
    begins: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Real:
    """A real number between `low` and `high`, on a linear or (`log`) a logarithmic scale.

    begins: the range in which a search begins that can widen it; None: all of it.
    """

    name: str
    low: float
    high: float
    log: bool = False
    kind: Kind = "continuous"
    begins: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"gene {self.name!r}: expected finite low < high, got low={self.low}, high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"gene {self.name!r}: a logarithmic range needs low > 0, got low={self.low}")

    def value(self, unit: float) -> float:
        """The number at `unit` in [0, 1]."""
        if self.log:
            value = math.exp(math.log(self.low) + unit * (math.log(self.high) - math.log(self.low)))
            return min(max(value, self.low), self.high)  # rounding may step over an end
        return self.low + unit * (self.high - self.low)

    def unit(self, value: Value) -> float:
        """The coordinate of `value`; ValueError where it lies outside the range."""
        number = float(value)
        if not self.low <= number <= self.high:
            raise ValueError(f"gene {self.name!r}: {number} is outside [{self.low}, {self.high}]")
        if self.log:
            return (math.log(number) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (number - self.low) / (self.high - self.low)

    @property
    def axis(self) -> Axis:
        """What an optimizer is told of it."""
        begins = (0.0, 1.0) if self.begins is None else (self.unit(self.begins[0]), self.unit(self.begins[1]))
        return Axis(self.kind, begins=begins)


@dataclass(frozen=True)
class Choice:
    """One of `options`, each with an equal share of the unit interval."""

    name: str
    options: tuple[Value, ...]
    kind: Kind = "categorical"

    def __post_init__(self) -> None:
        if len(self.options) < 2:
            raise ValueError(f"gene {self.name!r}: expected two or more choices, got {list(self.options)}")

    def value(self, unit: float) -> Value:
        """The option at `unit` in [0, 1]."""
        return self.options[min(int(unit * len(self.options)), len(self.options) - 1)]

    def unit(self, value: Value) -> float:
        """The middle of the share of `value`; ValueError where it is no option."""
        if value not in self.options:
            raise ValueError(f"gene {self.name!r}: {value!r} is none of {list(self.options)}")
        return (self.options.index(value) + 0.5) / len(self.options)

    @property
    def axis(self) -> Axis:
        """What an optimizer is told of it."""
        return Axis(self.kind, len(self.options))


def whole(key: str, value: object) -> int:
    """`value` as an int; ValueError, which names `key`, unless it is a whole number. 2.0 is one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        raise ValueError(f"{key}: expected a whole number, got {value!r}")
    return int(value)


def integer(name: str, low: int, high: int) -> Choice:
    """An integer from `low` to `high`, both included; ValueError for bounds that are not whole numbers."""
    low, high = whole(f"gene {name!r}: low", low), whole(f"gene {name!r}: high", high)
    if low >= high:
        raise ValueError(f"gene {name!r}: expected low < high, got low={low}, high={high}")
    return Choice(name, tuple(range(low, high + 1)), kind="integer")


Gene = Real | Choice


def simplex_weights(units: Sequence[float]) -> tuple[float, ...]:
    """Weights that sum to 1 at `units` in the unit cube, (n,): w_i = e_i / sum(e) with e_i = -log(1 - u_i).

    Uniform units give uniform weights on the simplex, for the e_i are then exponential variables (Devroye, Non-Uniform
    Random Variate Generation, 1986, chapter V, theorem 2.2). Where some units are 1, these share all weight; where all
    are 0, all do.
    """
    if 1.0 in units or not any(units):
        top = max(units)
        sizes = [float(unit == top) for unit in units]
    else:
        sizes = [-math.log1p(-unit) for unit in units]
    total = sum(sizes)
    return tuple(size / total for size in sizes)


def simplex_units(weights: Sequence[float]) -> tuple[float, ...]:
    """Units at which `simplex_weights` are `weights`, (n,): those where the e_i are 1 on average."""
    return tuple(-math.expm1(-len(weights) * weight) for weight in weights)
