"""NSGA-II (Deb et al., IEEE Trans. Evol. Comput. 6, 2002) for two or more objectives, by the package pymoo."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evohydra.search.optimizers import Points, dimension_of
from evohydra.search.optimizers.pymoo import Driven, part
from evohydra.spaces.genes import Axis

OPERATORS = ("algorithms.moo.nsga2", "operators.crossover.sbx", "operators.mutation.pm")


class NSGA2:
    """Fronts survive, the first ones first; of the last one those far from others. Children are made as in `ga`."""

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
        nsga2, sbx, pm = (part(module, "nsga2") for module in OPERATORS)
        self.population = population
        self._driven = Driven(
            lambda first: nsga2.NSGA2(
                pop_size=population,
                sampling=first,
                crossover=sbx.SBX(prob=crossover, eta=crossover_eta),
                mutation=pm.PM(eta=mutation_eta),
            ),
            dimension=dimension, seed=seed, start=start, population=population, name="nsga2",
        )  # fmt: skip

    def ask(self) -> Points:
        """The next generation, (population, dimension)."""
        return self._driven.ask()

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Of one objective: the best survive."""
        self._driven.tell(fitness[:, None])

    def tell_objectives(self, genomes: Points, objectives: NDArray[np.float64]) -> None:
        """Let the first fronts survive."""
        self._driven.tell(objectives)

    def close(self) -> None:
        """Nothing to release."""
