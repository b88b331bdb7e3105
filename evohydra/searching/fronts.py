"""Fronts: which of many candidates no other one is better than in all objectives, and rules to pick from them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]  # (n, objectives), larger is better
Rule = Callable[[Values, NDArray[np.float64]], NDArray[np.float64]]  # values, fitness (n,) -> preference (n,)


def on_front(values: Values) -> NDArray[np.bool_]:
    """(n,): of which no other row is as good in all columns and better in one (Pareto optimality)."""
    best = np.ones(len(values), bool)
    for at, row in enumerate(values):
        best[at] = not ((values >= row).all(axis=1) & (values > row).any(axis=1)).any()
    return best


def picked(values: Values, fitness: NDArray[np.float64], rule: Rule, count: int) -> list[int]:
    """`count` rows, the best first: those of the front by `rule`, then those of the front of the others, and so on.

    Of one objective every front is one value, so that this is the order of `values`. Ties go to the first row.
    """
    left, found = np.arange(len(values)), list[int]()
    while len(left) and len(found) < count:
        front = on_front(values[left])
        here = left[front]
        found += here[np.argsort(-rule(values[here], fitness[here]), kind="stable")].tolist()
        left = left[~front]
    return found[:count]


def best_fitness(values: Values, fitness: NDArray[np.float64]) -> NDArray[np.float64]:
    """The one with the best fitness, whatever its other objectives."""
    return fitness


def nearest_to_ideal(values: Values, fitness: NDArray[np.float64]) -> NDArray[np.float64]:
    """The one nearest to the point that is best in all objectives, each scaled to the unit interval over the front."""
    nearness: NDArray[np.float64] = -np.linalg.norm(1 - _scaled(values), axis=1)
    return nearness


def knee(values: Values, fitness: NDArray[np.float64]) -> NDArray[np.float64]:
    """The one farthest from the plane through the ends of the front, scaled as above (Das, Struct. Optim. 18, 1999).

    That plane is where the scaled objectives have the same sum.
    """
    total: NDArray[np.float64] = _scaled(values).sum(axis=1)
    return total


RULES: dict[str, Rule] = {"fitness": best_fitness, "ideal": nearest_to_ideal, "knee": knee}  # as in conf/pick


def _scaled(values: Values) -> Values:
    low = values.min(axis=0, initial=np.inf)
    span = values.max(axis=0, initial=-np.inf) - low
    scaled: Values = (values - low) / np.where(span > 0, span, 1.0)
    return scaled
