"""Objectives: the scores of an evaluation, and its recipe -> fitness, and where there are several, the objectives."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from evohydra.recipe import Node, Stack

Means = Mapping[str, float]  # of each benchmark
HOPS = "-hops"  # the objective of path_length


def none(means: Means, fitness: float, recipe: Node) -> dict[str, float]:
    """No objectives but the fitness."""
    return {}


@dataclass(frozen=True)
class Objective:
    """What is maximised.

    weights: what the mean score of each benchmark counts in the fitness, their sum; None: all the same, their mean.
    parts: the objectives by name where there are several, larger is better; the name of a cost begins with "-", and its
    value is negative. Strategies that want one number take the fitness, whatever `parts` says.
    """

    weights: Mapping[str, float] | None = None
    parts: Callable[[Means, float, Node], dict[str, float]] = none

    def fitness(self, scores: Mapping[str, Sequence[float]]) -> float:
        """The weighted sum, or the mean, of the benchmarks' mean scores."""
        means = _means(scores)
        if self.weights is None:
            return sum(means.values()) / len(means)
        return sum(weight * means[name] for name, weight in self.weights.items())

    def weighted(self, scores: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
        """Scores whose mean over benchmarks of mean scores is the fitness, for statistics of it.

        Benchmarks that do not count are left out.
        """
        if self.weights is None:
            return {name: list(values) for name, values in scores.items()}
        counting = {name: weight for name, weight in self.weights.items() if weight}
        return {name: [weight * len(counting) * value for value in scores[name]] for name, weight in counting.items()}

    def several(self, scores: Mapping[str, Sequence[float]], recipe: Node) -> dict[str, float]:
        """The objectives by name; empty where there is but the fitness."""
        return self.parts(_means(scores), self.fitness(scores), recipe)

    def check(self, benchmarks: Sequence[str], recipe: Node) -> None:
        """ValueError where this objective does not fit the benchmarks, or recipes like this one."""
        weights = self.weights
        if weights is not None and (set(weights) != set(benchmarks) or not all(map(_is_weight, weights.values()))):
            raise ValueError(f"objective.weights: expected a number for each of {sorted(benchmarks)}, got {weights}")
        if weights is not None and not any(weights.values()):
            raise ValueError(f"objective.weights: expected one or more that are not 0, got {weights}")
        self.several({name: [0.0] for name in benchmarks}, recipe)


def weighted(weights: Mapping[str, float] | None = None) -> Objective:
    """The objective with these weights; without any it fits no benchmarks, see `Objective.check`."""
    return Objective(weights or {})


def each(means: Means, fitness: float, recipe: Node) -> dict[str, float]:
    """Each benchmark is an objective."""
    return dict(means)


def path_length(means: Means, fitness: float, recipe: Node) -> dict[str, float]:
    """The fitness against the number of hops, which costs time and memory."""
    if not isinstance(recipe, Stack):
        raise ValueError("objective=path_length: only paths have a length; choose merge=dfs or merge=METHOD+dfs")
    return {"score": fitness, HOPS: -float(len(recipe.hops))}


def finite(fitness: Sequence[float | None], seen: Iterable[float | None]) -> list[float]:
    """`fitness` with each failure (None, NaN, infinite) as the worst finite number of it and all `seen`; 0 if none.

    Without failures `seen` is not looked at, for it may be all genomes of a search.
    """
    own = [value for value in fitness if value is not None and math.isfinite(value)]
    if len(own) == len(fitness):
        return own
    worst = min((*own, *(value for value in seen if value is not None and math.isfinite(value))), default=0.0)
    return [value if value is not None and math.isfinite(value) else worst for value in fitness]


def _means(scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: sum(values) / len(values) for name, values in scores.items()}


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
