"""Algorithms of the package pymoo (Blank and Deb, IEEE Access 8, 2020), driven a generation at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evohydra.optional import optional
from evohydra.search.optimizers import Points, starting_points


def part(module: str, wanted_by: str) -> Any:
    """The module pymoo.`module`."""
    return optional(f"pymoo.{module}", f"optimizer={wanted_by}", "evohydra[strategies]")


class Driven:
    """`make` gives the algorithm for its first generation, (population, dimension).

    That is a Latin hypercube whose first points are `start`. pymoo draws from a generator of its own, seeded once.
    """

    def __init__(
        self, make: Callable[[Points], Any], *, dimension: int, seed: int, start: Points | None, population: int,
        name: str,
    ) -> None:  # fmt: skip
        if population < 4:
            raise ValueError(f"optimizer={name}: expected a population of 4 or more, got {population}")
        generator = np.random.default_rng([seed, 1])
        cells = np.stack([generator.permutation(population) for _ in range(dimension)], axis=1)
        first: Points = (cells + generator.random((population, dimension))) / population
        known = starting_points(start, dimension, population)
        first[: len(known)] = known
        self._problem = part("core.problem", name).Problem(n_var=dimension, n_obj=1, xl=0.0, xu=1.0)
        self._algorithm = make(first)
        self._algorithm.setup(self._problem, termination=part("core.termination", name).NoTermination(), seed=seed)
        self._asked: Any = None

    def ask(self) -> Points:
        """The next generation, (genomes, dimension)."""
        self._asked = self._algorithm.ask()
        if self._asked is None:  # no child that is new
            return np.empty((0, self._problem.n_var))
        points: Points = np.clip(self._asked.get("X").astype(np.float64), 0.0, 1.0)
        return points

    def tell(self, values: NDArray[np.float64]) -> None:
        """Learn from (genomes, objectives), larger is better; the package minimises."""
        self._problem.n_obj = values.shape[1]
        self._asked.set("F", -values)
        self._algorithm.tell(infills=self._asked)
