"""Differential evolution (Storn and Price 1997), scipy's, driven a generation at a time."""

import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le, Lt
from numpy.typing import NDArray
from scipy.optimize import differential_evolution

from evohydra.checks import Share
from evohydra.searching.optimizers import MOST, Points, dimension_of, favoured, latin_hypercube, starting_points
from evohydra.searching.optimizers.de_trials import Trials
from evohydra.searching.optimizers.singles import Result
from evohydra.spaces.genes import Axis

Strategy = Literal["best1bin", "best1exp", "rand1bin", "rand1exp", "rand2bin", "rand2exp", "randtobest1bin",
                   "randtobest1exp", "currenttobest1bin", "currenttobest1exp", "best2bin", "best2exp"]  # fmt: skip
Factor = Annotated[float, Ge(0), Lt(2)]  # scipy takes no others


class _SearchOver(Exception):  # noqa: N818  (a signal, not an error)
    """Leaves scipy's loop."""


class DifferentialEvolution:
    """scipy.optimize.differential_evolution with deferred updating, in a thread that waits for fitness.

    Starting points take the first places of the Latin hypercube that is generation 0.

    Asked for one genome at a time it is asynchronous differential evolution (`de_trials`), without scipy.
    """

    takes_singles = True

    def __init__(
        self,
        *,
        axes: Sequence[Axis],
        seed: int,
        start: Points | None = None,
        population: Annotated[int, Ge(5), Le(MOST)] = 16,
        strategy: Strategy = "best1bin",
        mutation: tuple[Factor, Factor] | Factor = (0.5, 1.0),
        recombination: Share = 0.7,
    ) -> None:
        dimension = dimension_of(axes)
        self.population = population
        self._asked: SimpleQueue[Points | BaseException] = SimpleQueue()
        self._told: SimpleQueue[NDArray[np.float64] | None] = SimpleQueue()
        generator = np.random.default_rng(seed)
        initial = favoured(latin_hypercube(population, dimension, generator), axes)
        known = starting_points(start, dimension, population)
        initial[: len(known)] = known
        factors = float(mutation) if isinstance(mutation, float | int) else (float(mutation[0]), float(mutation[1]))
        self._trials = Trials(initial, strategy, factors, recombination, np.random.default_rng([seed, 3]))
        options = {
            "strategy": strategy,
            "mutation": tuple(mutation) if not isinstance(mutation, float | int) else mutation,
            "recombination": recombination,
            "init": initial,
            "rng": generator,
        }
        self._thread = threading.Thread(target=self._run, args=(dimension, options), daemon=True)
        self._thread.start()

    def _run(self, dimension: int, options: dict[str, object]) -> None:
        # Negative tolerances: a population of equal fitness is a plateau to leave, not convergence.
        try:
            differential_evolution(self._exchange, [(0.0, 1.0)] * dimension, vectorized=True, updating="deferred",
                                   polish=False, maxiter=2**31, tol=0.0, atol=-1.0, **options)  # fmt: skip
            self._asked.put(RuntimeError("scipy ended the search by itself"))  # `ask` would wait for ever
        except _SearchOver:
            pass
        except BaseException as error:  # handed to the thread that waits in `ask`
            self._asked.put(error)

    def _exchange(self, columns: Points) -> NDArray[np.float64]:
        """scipy's objective: (dimension, population) -> (population,), minimised."""
        self._asked.put(columns.T.copy())
        fitness = self._told.get()
        if fitness is None:
            raise _SearchOver
        return -fitness

    def ask(self) -> Points:
        """The next generation, (population, dimension)."""
        asked = self._asked.get()
        if isinstance(asked, BaseException):
            raise asked
        return np.clip(asked, 0.0, 1.0)

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Hand the fitness to scipy."""
        self._told.put(np.asarray(fitness, dtype=np.float64))

    def ask_one(self, number: int, pending: Points) -> NDArray[np.float64]:
        """The next trial, (dimension,)."""
        return self._trials.ask(number)

    def tell_one(self, number: int, result: Result) -> None:
        """Let the trial compete for its place in the population."""
        self._trials.tell(number, result.genome, result.fitness)

    def close(self) -> None:
        """End the thread."""
        self._told.put(None)
        self._thread.join(timeout=10)
