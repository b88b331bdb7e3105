"""M2N2, natural niches: Competition and Attraction Improve Model Fusion (Abrantes et al., arXiv 2508.16204)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evohydra.searching.optimizers import AtLeastTwo, Points, dimension_of, favoured, starting_points
from evohydra.searching.optimizers.singles import Result
from evohydra.spaces.genes import Axis

ExampleScores = NDArray[np.float64]  # (genomes, examples), not negative


def competition(scores: ExampleScores, alpha: float) -> ExampleScores:
    """What each genome gets of each example, of which there is as much for all together.

    s_ij / z_j^alpha with z_j the sum over genomes; nothing of an example that nobody solves.
    """
    total = scores.sum(axis=0)
    return scores / np.where(total > 0, total, 1.0) ** alpha


def attraction(shares: ExampleScores, first: int) -> NDArray[np.float64]:
    """(genomes,): what each would add to what `first` gets, the sum over j of max(s_j(B) - s_j(A), 0) / z_j^alpha."""
    added: NDArray[np.float64] = np.maximum(shares - shares[first], 0.0).sum(axis=1)
    return added


class M2N2:
    """An archive of genomes in niches, whose parents complement each other.

    As in the paper: examples are resources that the genomes which solve them share; a child replaces the genome of
    the archive that gets least; the first parent is drawn by what it gets, the second one by attraction; a child takes
    `w` of one parent and `1 - w` of the other up to a split point, and the reverse behind it, drawn anew each time.
    Unlike the paper: what is split and mixed are the genes in their order, not the parameters of models, and linearly,
    not on a sphere (a choice is that of the nearer parent); a generation has `population` children, not one; the
    archive begins with starting points and random ones; children of known models are mutated too, by `mutation`.

    Asked for one child at a time it is the paper's algorithm in this; each competes when its scores arrive.
    """

    takes_singles = True

    def __init__(
        self,
        *,
        axes: Sequence[Axis],
        seed: int,
        start: Points | None = None,
        population: AtLeastTwo = 12,
        archive: AtLeastTwo = 20,
        alpha: float = 1.0,
        mutation: float = 0.05,
    ) -> None:
        self._dimension = dimension_of(axes)
        self.population, self._size, self._alpha, self._mutation = population, archive, alpha, mutation
        self._choices = np.array([axis.kind == "categorical" for axis in axes])
        self._generator = np.random.default_rng(seed)
        known = starting_points(start, self._dimension, population)
        drawn = self._generator.random((population - len(known), self._dimension))
        self._first = np.vstack([known, favoured(drawn, axes)])
        self._archive = np.empty((0, self._dimension))
        self._scores = np.empty((0, 1))

    def ask(self) -> Points:
        """The next generation, (population, dimension)."""
        if not len(self._archive):
            return self._first.copy()
        shares = competition(self._positive(), self._alpha)
        return np.array([self._child(*self._parents(shares)) for _ in range(self.population)])

    def _parents(self, shares: ExampleScores) -> tuple[int, int]:
        first = self._drawn(shares.sum(axis=1))
        return first, self._drawn(attraction(shares, first))

    def _drawn(self, weights: NDArray[np.float64]) -> int:
        total = weights.sum()
        return int(self._generator.choice(len(weights), p=weights / total if total > 0 else None))

    def _child(self, first: int, second: int) -> NDArray[np.float64]:
        share, split = self._generator.random(), self._generator.integers(self._dimension)
        of_second = np.where(np.arange(self._dimension) < split, share, 1 - share)
        of_second = np.where(self._choices, np.rint(of_second), of_second)
        child = (1 - of_second) * self._archive[first] + of_second * self._archive[second]
        redrawn = self._choices & (self._generator.random(self._dimension) < self._mutation)
        noise = self._mutation * self._generator.normal(size=self._dimension)
        moved = np.where(redrawn, self._generator.random(self._dimension), child + noise * ~self._choices)
        return np.clip(moved, 0.0, 1.0)

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Without examples: fitness is the one resource."""
        self.tell_examples(genomes, fitness, fitness[:, None])

    def tell_examples(self, genomes: Points, fitness: NDArray[np.float64], scores: NDArray[np.float64]) -> None:
        """Let each child compete for its place in the archive."""
        self._scores = self._scores.reshape(-1, scores.shape[1])
        for genome, row in zip(genomes, scores, strict=True):
            self._archive, self._scores = np.vstack([self._archive, genome]), np.vstack([self._scores, row])
            if len(self._archive) > self._size:
                least = int(competition(self._positive(), self._alpha).sum(axis=1).argmin())
                self._archive = np.delete(self._archive, least, axis=0)
                self._scores = np.delete(self._scores, least, axis=0)

    def ask_one(self, number: int, pending: Points) -> NDArray[np.float64]:
        """The first generation one by one, then children, (dimension,); random genomes while the archive has no two."""
        if number < self.population:
            return np.asarray(self._first[number])
        if len(self._archive) < 2:
            return self._generator.random(self._dimension)
        return self._child(*self._parents(competition(self._positive(), self._alpha)))

    def tell_one(self, number: int, result: Result) -> None:
        """Let the genome compete for its place in the archive."""
        self.tell_examples(result.genome[None], np.array([result.fitness]), result.scores[None])

    def _positive(self) -> ExampleScores:
        """ExampleScores, from which the lowest of each example is taken where there are negative ones."""
        positive: ExampleScores = self._scores - np.minimum(self._scores.min(axis=0), 0.0)
        return positive

    def close(self) -> None:
        """Nothing to release."""
