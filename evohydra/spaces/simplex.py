"""Weights of sources that sum to 1: some may be frozen, the others share what is left."""

from collections.abc import Mapping
from dataclasses import dataclass

from evohydra.spaces.genes import Value, simplex_units, simplex_weights

TOLERANCE = 1e-6  # of published weights


@dataclass(frozen=True)
class Simplex:
    """The weights called `free`, which are coordinates, and those that are frozen to a value."""

    free: tuple[str, ...]
    frozen: Mapping[str, float]

    @classmethod
    def of(cls, names: tuple[str, ...], frozen: Mapping[str, Value]) -> "Simplex":
        """That of `names`, of which some are `frozen`; ValueError where they leave nothing, or too much.

        A weight that is the only one left is what is missing to 1, and no coordinate.
        """
        kept = {name: float(frozen[name]) for name in names if name in frozen}
        free = tuple(name for name in names if name not in kept)
        left = 1 - sum(kept.values())
        if min(kept.values(), default=0.0) < 0 or left < -TOLERANCE or (not free and left > TOLERANCE):
            raise ValueError(
                f"frozen: expected weights of 0 or more that sum to 1, or to less and leave some, got {kept}"
            )
        if len(free) == 1:
            return cls((), {**kept, free[0]: max(left, 0.0)})
        return cls(free, kept)

    @property
    def left(self) -> float:
        """What the free weights share."""
        return max(1 - sum(self.frozen.values()), 0.0)

    def weights(self, units: Mapping[str, Value]) -> dict[str, float]:
        """The free weights where their coordinates are `units`."""
        shares = simplex_weights([float(units[name]) for name in self.free]) if self.free else ()
        return {name: self.left * share for name, share in zip(self.free, shares, strict=True)}

    def units(self, weights: Mapping[str, Value]) -> dict[str, float]:
        """The coordinates where the free weights are `weights`; ValueError where they are not on the simplex."""
        free = [float(weights[name]) for name in self.free]
        if free and (min(free) < 0 or abs(sum(free) - self.left) > TOLERANCE):
            raise ValueError(f"expected weights of 0 or more that sum to {self.left}, got {free}")
        shares = [weight / self.left if self.left else 1 / len(free) for weight in free]
        return dict(zip(self.free, simplex_units(shares), strict=True))
