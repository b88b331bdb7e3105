"""Particle swarm optimization (Kennedy and Eberhart, ICNN 1995), by the package pymoo."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evohydra.search.optimizers import Points, dimension_of
from evohydra.search.optimizers.pymoo import Driven, part
from evohydra.spaces.genes import Axis


class ParticleSwarm:
    """Each particle is drawn to the best place that it has seen (`own`), and to the best of all (`best`).

    inertia: share of the velocity that is kept. adaptive: these three follow the spread of the swarm (Zhan et al.,
    IEEE Trans. SMC-B 39, 2009). velocity: the highest, in edges of the cube.
    """

    def __init__(
        self,
        *,
        axes: Sequence[Axis],
        seed: int,
        start: Points | None = None,
        population: int = 16,
        inertia: float = 0.9,
        own: float = 2.0,
        best: float = 2.0,
        adaptive: bool = True,
        velocity: float = 0.2,
    ) -> None:
        dimension = dimension_of(axes)
        self.population = population
        self._driven = Driven(
            lambda first: part("algorithms.soo.nonconvex.pso", "pso").PSO(
                pop_size=population,
                sampling=first,
                w=inertia,
                c1=own,
                c2=best,
                adaptive=adaptive,
                max_velocity_rate=velocity,
                pertube_best=False,  # asks for the best particle again where no gene of it is mutated
            ),
            dimension=dimension, seed=seed, start=start, population=population, name="pso",
        )  # fmt: skip

    def ask(self) -> Points:
        """The next generation, (population, dimension)."""
        return self._driven.ask()

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Move the best places."""
        self._driven.tell(fitness[:, None])

    def close(self) -> None:
        """Nothing to release."""
