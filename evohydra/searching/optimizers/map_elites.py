"""MAP-Elites (Mouret and Clune, arXiv 1504.04909) as in CycleQD (Kuroki et al., arXiv 2410.14735), by pyribs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evohydra.checks.libraries import optional
from evohydra.searching.optimizers import AtLeastOne, AtLeastTwo, Points, dimension_of, favoured, starting_points
from evohydra.searching.optimizers.singles import Result
from evohydra.spaces.genes import Axis


class MapElites:
    """One archive for each objective: that is the quality, the others are the behaviour. They take turns as parents.

    An archive is a grid of about `cells` cells over the behaviours seen so far, and keeps the best genome of each.
    Every genome is offered to all archives, as in CycleQD, but for those that are worst in all objectives, as failed
    ones are. Children are an elite of the archive whose turn it is, moved
    along the line to another one and by noise (Vassiliades and Mouret, arXiv 1804.03906: `line` and `iso`); CycleQD
    merges and mutates the models themselves instead. A search with one objective has no other ones: its behaviour
    is the place of a genome on two random directions.
    """

    takes_singles = True

    def __init__(
        self,
        *,
        axes: Sequence[Axis],
        seed: int,
        start: Points | None = None,
        population: AtLeastOne = 16,
        cells: AtLeastTwo = 25,
        iso: float = 0.05,
        line: float = 0.2,
    ) -> None:
        self._dimension = dimension_of(axes)
        self._archives = optional("ribs.archives", "optimizer=map_elites", "evohydra[strategies]")
        self._emitters = optional("ribs.emitters", "optimizer=map_elites", "evohydra[strategies]")
        self.population, self._cells, self._iso, self._line = population, cells, iso, line
        self._generator = np.random.default_rng(seed)
        known = starting_points(start, self._dimension, population)
        drawn = self._generator.random((population - len(known), self._dimension))
        self._first = np.vstack([known, favoured(drawn, axes)])
        self._directions = self._generator.normal(size=(self._dimension, 2))
        self._genomes = np.empty((0, self._dimension))  # the elites of all archives
        self._values = np.empty((0, 1))  # their objectives
        self._low, self._high = np.array(np.inf), np.array(-np.inf)  # of the behaviours seen
        self._turn = 0

    def ask(self) -> Points:
        """The next generation, (population, dimension)."""
        if not len(self._genomes):
            return self._first.copy()
        return self._children(self.population)

    def _children(self, count: int) -> Points:
        """(count, dimension), of the archive whose turn it is."""
        emitter = self._emitters.IsoLineEmitter(
            self._archive(self._turn % self._values.shape[1]),
            iso_sigma=self._iso,
            line_sigma=self._line,
            x0=np.full(self._dimension, 0.5),
            bounds=[(0.0, 1.0)] * self._dimension,
            batch_size=count,
            seed=self._seed(),
        )
        return np.asarray(emitter.ask(), dtype=np.float64)

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Of one objective: offer the generation to its archive."""
        self.tell_objectives(genomes, fitness[:, None])

    def tell_objectives(self, genomes: Points, objectives: NDArray[np.float64]) -> None:
        """Offer the generation to all archives."""
        count = objectives.shape[1]
        self._genomes = np.vstack([self._genomes, genomes])
        self._values = np.vstack([self._values.reshape(-1, count), objectives])
        worst = (self._values == self._values.min(axis=0)).all(axis=1)
        if not worst.all():
            self._genomes, self._values = self._genomes[~worst], self._values[~worst]
        behaviours = self._behaviours()
        self._low, self._high = (
            np.minimum(self._low, behaviours.min(axis=0)),
            np.maximum(self._high, behaviours.max(axis=0)),
        )
        elites = np.unique(np.concatenate([self._archive(quality).data("row") for quality in range(count)]))
        self._genomes, self._values = self._genomes[elites], self._values[elites]
        self._turn += 1

    def ask_one(self, number: int, pending: Points) -> NDArray[np.float64]:
        """The first generation one by one, then a child, (dimension,); random genomes while there is no elite."""
        if number < self.population:
            return np.asarray(self._first[number])
        if not len(self._genomes):
            return self._generator.random(self._dimension)
        return np.asarray(self._children(1)[0])

    def tell_one(self, number: int, result: Result) -> None:
        """Offer the genome to all archives; the next child is of the next one."""
        self.tell_objectives(result.genome[None], result.objectives[None])

    def _behaviours(self) -> NDArray[np.float64]:
        behaviours: NDArray[np.float64]
        behaviours = self._values if self._values.shape[1] > 1 else self._genomes @ self._directions
        return behaviours

    def _archive(self, quality: int) -> Any:
        """The archive in which objective `quality` is the quality, of all genomes that are kept."""
        behaviours = self._behaviours()
        others = np.arange(behaviours.shape[1])
        if self._values.shape[1] > 1:
            others = np.delete(others, quality)
        span = np.maximum(self._high - self._low, 1e-12)[others]
        archive = self._archives.GridArchive(
            solution_dim=self._dimension,
            dims=[max(2, round(self._cells ** (1 / len(others))))] * len(others),
            ranges=[(0.0, 1.0)] * len(others),
            seed=self._seed(),
            extra_fields={"row": ((), np.int64)},
        )
        places = (behaviours[:, others] - self._low[others]) / span
        archive.add(self._genomes, self._values[:, quality], places, row=np.arange(len(self._genomes)))
        return archive

    def _seed(self) -> int:
        return int(self._generator.integers(2**31))

    def close(self) -> None:
        """Nothing to release."""
