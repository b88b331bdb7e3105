"""Differential evolution without generations: each trial is made from the population as it is then.

Zhabitskaya and Zhabitsky, Asynchronous Differential Evolution with Restart, LNCS 8236, 2013 (doi
10.1007/978-3-642-41515-9_64), without its restarts. The mutations are those of `scipy.optimize.differential_evolution`,
with the same names.
"""

import numpy as np
from numpy.typing import NDArray

from evohydra.searching.optimizers import Points

Values = NDArray[np.float64]
# How many genomes beside the target a mutation needs.
DONORS = {"best1": 2, "rand1": 3, "rand2": 5, "randtobest1": 3, "currenttobest1": 2, "best2": 4}


class Trials:
    """A population of `first`, (population, dimension), whose places trials compete for, one after the other.

    Trial `number` is for the place `number` modulo the population, and takes it where its fitness is not lower than
    that of the genome which is there when it is told. While too few places have a fitness for the mutation,
    trials are uniform random points. mutation: the factor, or the range that it is drawn from for each trial. Raises
    ValueError where the population is too small for the strategy.
    """

    def __init__(
        self,
        first: Points,
        strategy: str,
        mutation: tuple[float, float] | float,
        recombination: float,
        generator: np.random.Generator,
    ) -> None:
        self._mutation_of, self._crossover = strategy[:-3], strategy[-3:]
        self._donors = DONORS[self._mutation_of]
        if len(first) <= self._donors:
            raise ValueError(
                f"optimizer.population: expected more than {self._donors} with optimizer.strategy={strategy}, got "
                f"{len(first)}"
            )
        self._population = first.copy()
        self._fitness = np.full(len(first), -np.inf)
        self._mutation, self._recombination, self._generator = mutation, recombination, generator

    def ask(self, number: int) -> Values:
        """Trial `number`, (dimension,); the first ones are the population itself."""
        count, genes = self._population.shape
        if number < count:
            return np.array(self._population[number])
        target, known = number % count, np.flatnonzero(np.isfinite(self._fitness))
        if len(known) <= self._donors:
            return np.asarray(self._generator.random(genes))
        if not np.isfinite(self._fitness[target]):  # its genome is still being scored: another one is improved
            target = int(self._generator.choice(known))
        donors = self._generator.permutation(known[known != target])[: self._donors]
        crossed = self._crossed(genes)
        trial = np.where(crossed, self._mutant(target, donors), self._population[target])
        outside = (trial < 0) | (trial > 1)
        trial[outside] = self._generator.random(int(outside.sum()))
        return trial

    def _mutant(self, target: int, donors: NDArray[np.intp]) -> Values:
        of, low_high = self._population, self._mutation
        factor = float(self._generator.uniform(*low_high)) if isinstance(low_high, tuple) else low_high
        best, now = of[int(self._fitness.argmax())], of[target]
        a, b, *others = of[donors]
        mutant: Values
        match self._mutation_of:
            case "best1":
                mutant = best + factor * (a - b)
            case "rand1":
                mutant = a + factor * (b - others[0])
            case "rand2":
                mutant = a + factor * (b + others[0] - others[1] - others[2])
            case "randtobest1":
                nearer = a + factor * (best - a)
                mutant = nearer + factor * (b - others[0])
            case "currenttobest1":
                mutant = now + factor * (best - now + a - b)
            case _:
                mutant = best + factor * (a + b - others[0] - others[1])
        return mutant

    def _crossed(self, genes: int) -> NDArray[np.bool_]:
        """(genes,), which genes are the mutant's: one at least; with "exp" a run of them, with "bin" each by chance."""
        first = int(self._generator.integers(genes))
        drawn = self._generator.random(genes) < self._recombination
        if self._crossover == "bin":
            drawn[first] = True
            return drawn
        drawn[0] = True
        length = genes if drawn.all() else int(drawn.argmin())
        crossed = np.zeros(genes, dtype=bool)
        crossed[(first + np.arange(length)) % genes] = True
        return crossed

    def tell(self, number: int, genome: Values, fitness: float) -> None:
        """Let the trial compete for its place."""
        place = number % len(self._fitness)
        if fitness >= self._fitness[place]:
            self._population[place], self._fitness[place] = genome, fitness
