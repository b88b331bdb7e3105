"""A genetic algorithm: tournaments, simulated binary crossover (SBX) and polynomial mutation; by the package pymoo."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evohydra.search.optimizers import Points, dimension_of
from evohydra.search.optimizers.pymoo import Driven, part
from evohydra.spaces.genes import Axis

OPERATORS = ("algorithms.soo.nonconvex.ga", "operators.crossover.sbx", "operators.mutation.pm")


class GeneticAlgorithm:
    """The best `population` of parents and children survive.

    crossover: chance that two parents are crossed. crossover_eta, mutation_eta: the larger, the nearer children are to
    their parents (Deb and Agrawal, Complex Systems 9, 1995; Deb and Goyal, Comput. Sci. Inform. 26, 1996).
    """

    def __init__(
        self,
        *,
        axes: Sequence[Axis],
        seed: int,
        start: Points | None = None,
        population: int = 16,
        crossover: float = 0.9,
        crossover_eta: float = 15.0,
        mutation_eta: float = 20.0,
    ) -> None:
        dimension = dimension_of(axes)
        ga, sbx, pm = (part(module, "ga") for module in OPERATORS)
        self.population = population
        self._driven = Driven(
            lambda first: ga.GA(
                pop_size=population,
                sampling=first,
                crossover=sbx.SBX(prob=crossover, eta=crossover_eta),
                mutation=pm.PM(eta=mutation_eta),
            ),
            dimension=dimension, seed=seed, start=start, population=population, name="ga",
        )  # fmt: skip

    def ask(self) -> Points:
        """The next generation, (population, dimension)."""
        return self._driven.ask()

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Let the best survive."""
        self._driven.tell(fitness[:, None])

    def close(self) -> None:
        """Nothing to release."""
