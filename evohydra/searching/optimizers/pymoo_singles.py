"""Algorithms of pymoo without generations: genetic ones in steady state, and an asynchronous particle swarm."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.soo.nonconvex.pso import pso_equation
from pymoo.core.algorithm import Algorithm
from pymoo.core.individual import Individual
from pymoo.core.population import Population
from pymoo.core.problem import Problem

from evohydra.checks.libraries import PrivateParts
from evohydra.searching.optimizers.singles import Result

Values = NDArray[np.float64]
TESTED = "0.6.2"
PARTS = (PrivateParts("pymoo", TESTED, "pymoo.algorithms.soo.nonconvex.pso:PSO", ("_adapt",)),)
TRIES = 20  # of a particle that would leave the cube, as in the package


class SteadyState:
    """A genetic algorithm whose generations are one child each, as `pymoo.algorithms.base.genetic` has them.

    The first results, as many as a population, are the first parents; from then on each result competes when it comes
    (the steady state of Whitley, The GENITOR algorithm and selection pressure, ICGA 1989; for NSGA-II Durillo et al.,
    On the effect of the steady-state selection scheme in multi-objective genetic algorithms, EMO 2009). Until then
    more random genomes are asked for; so it is where no child is new.
    """

    def __init__(self, algorithm: Algorithm, problem: Problem) -> None:
        self._algorithm, self._problem = algorithm, problem
        self._first = list(algorithm.ask())
        self._open: dict[int, Individual] = {}
        self._parents: list[Individual] = []

    def ask(self, number: int) -> Values:
        """Genome `number`, (dimension,)."""
        algorithm, random = self._algorithm, self._algorithm.random_state
        if number < len(self._first):
            made = self._first[number]
        else:
            children: Sequence[Individual] = ()
            if algorithm.is_initialized:
                children = algorithm.mating.do(
                    self._problem, algorithm.pop, 1, algorithm=algorithm, random_state=random
                )
            made = children[0] if len(children) else Individual(X=random.random(self._problem.n_var))
        self._open[number] = made
        return np.asarray(made.X, dtype=np.float64)

    def tell(self, number: int, result: Result) -> None:
        """Its objectives."""
        self._problem.n_obj = len(result.objectives)
        scored = self._open.pop(number)
        scored.set("F", -result.objectives)
        if self._algorithm.is_initialized:
            self._algorithm.tell(infills=Population.create(scored))
            return
        self._parents.append(scored)
        if len(self._parents) == len(self._first):
            self._algorithm.tell(infills=Population.create(*self._parents))


class Swarm:
    """Particles that fly on one after the other, by the best places that are known then.

    Koh et al., Parallel asynchronous particle swarm optimization, Int. J. Numer. Meth. Engng 67:578-595, 2006. Ask
    `number` is for the particle `number` modulo their count, from where it is, whether that place has a fitness or not.
    Velocities, and how their settings adapt after as many results as particles, are the package's.
    """

    def __init__(self, algorithm: Algorithm, problem: Problem) -> None:
        self._algorithm, self._problem = algorithm, problem
        self._places = np.array(algorithm.ask().get("X"), dtype=np.float64)
        self._fastest = algorithm.max_velocity_rate * np.ones(problem.n_var)
        self._velocities = algorithm.random_state.random(self._places.shape) * self._fastest
        self._best, self._fitness = self._places.copy(), np.full(len(self._places), -np.inf)
        self._told = 0

    def ask(self, number: int) -> Values:
        """Genome `number`, (dimension,)."""
        particle = number % len(self._places)
        if number >= len(self._places):
            self._fly(slice(particle, particle + 1))
        return np.array(self._places[particle])

    def _fly(self, at: slice) -> None:
        algorithm, before = self._algorithm, self._places[at].copy()
        known = np.isfinite(self._fitness)
        leader = self._best[[self._fitness.argmax()]] if known.any() else before
        own = np.where(known[at, None], self._best[at], before)
        for _ in range(TRIES):
            now, velocity = pso_equation(
                before,
                own,
                leader,
                self._velocities[at],
                self._fastest,
                algorithm.w,
                algorithm.c1,
                algorithm.c2,
                random_state=algorithm.random_state,
            )
            outside = (now < 0) | (now > 1)
            if not outside.any():
                break
        nearer = before + algorithm.random_state.random(now.shape) * (np.clip(now, 0.0, 1.0) - before)
        self._places[at], self._velocities[at] = np.where(outside, nearer, now), velocity

    def tell(self, number: int, result: Result) -> None:
        """Its fitness."""
        fitness = result.fitness
        particle = number % len(self._places)
        if fitness > self._fitness[particle]:
            self._best[particle], self._fitness[particle] = result.genome, fitness
        self._told += 1
        if self._algorithm.adaptive and self._told % len(self._places) == 0 and np.isfinite(self._fitness).all():
            self._algorithm.pop = Population.new(X=self._best, F=-self._fitness[:, None])
            self._algorithm.sbest = self._algorithm.pop[[self._fitness.argmax()]]
            self._algorithm._adapt()
