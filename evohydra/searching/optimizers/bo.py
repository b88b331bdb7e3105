"""Bayesian optimization with a Gaussian process (Garnett, Bayesian Optimization, 2023)."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from evohydra.searching.optimizers import AtLeastOne, Points, default_population, dimension_of, starting_points
from evohydra.searching.optimizers.gaussian.acquisitions import SAMPLES, Improvement, ScalarizedImprovement, scalarized
from evohydra.searching.optimizers.gaussian.features import Features
from evohydra.searching.optimizers.gaussian.first import sobol
from evohydra.searching.optimizers.gaussian.learnt import Learnt
from evohydra.searching.optimizers.gaussian.limits import Limit, Limited
from evohydra.searching.optimizers.gaussian.model import GaussianProcess, Hyperparameters, Process, fitted
from evohydra.searching.optimizers.gaussian.proposal import Around, proposed
from evohydra.searching.optimizers.gaussian.ranges import Ranges
from evohydra.searching.optimizers.gaussian.scaling import raised, standardized
from evohydra.searching.optimizers.gaussian.transfer import Earlier, Shifted, Transfer
from evohydra.searching.optimizers.gaussian.trust import box, length
from evohydra.searching.optimizers.singles import Result
from evohydra.spaces.genes import Axis

Values = NDArray[np.float64]
MOST = 400  # genes
LOCAL = 24  # genes, from which on it looks in a trust region only: a model of so many is no guide to all of the cube
BEST = 8  # genomes around which candidates are made


class BayesianOptimization:
    """A Gaussian process of all that was told, and the genomes at which it expects the largest improvement.

    The first generation is the starting points and Sobol points, `population` in all (null: 4 + floor(3 ln n)). Later
    ones have `batch` genomes: each is chosen as if those before it had been told the model's own mean (Ginsbourger et
    al. 2010, the kriging believer). Of several objectives each genome follows a scalarization with weights of its own.

    Asked for one genome at a time it believes the model's own mean of those that are pending, and learns from each
    result. It needs `population` results for that; more Sobol points are asked until then.

    What has to be 0 or more of a genome (`tell_constraints`) has a model of its own: looked for is the largest
    improvement over the best genome that keeps all limits, times the probability of keeping them (Gardner et al. 2014).

    earlier: a run over the same genes. Its model is the mean that this one's begins from, where `transfer` says so and
    as long as it ranks the genomes of this run.

    Numbers are looked for in the ranges that the genes begin with, which grow while the best genomes lie at their ends.
    Up to LOCAL genes it looks in all of these ranges, from there on in a trust region around the best genome (TuRBO).

    All that it does follows from seed, axes and what it was told: nothing else is kept, so that a search that goes on
    needs no replay. Hyperparameters are fitted from the same start, to as much of the data as `fitted_on` says.
    """

    usual_budget = 130
    state_is_data = True
    widens_ranges = True
    takes_singles = True
    takes_earlier = True

    def __init__(
        self,
        *,
        axes: Sequence[Axis],
        seed: int,
        start: Points | None = None,
        population: AtLeastOne | None = None,
        batch: AtLeastOne = 4,
        transfer: bool = True,
        earlier: Earlier | None = None,
    ) -> None:
        dimension = dimension_of(axes)
        if dimension > MOST:
            raise ValueError(
                f"optimizer=bo: expected at most {MOST} genes, got {dimension}; choose optimizer=sep_cmaes, or "
                "optimizer=catcma where some of them are choices"
            )
        self.population, self._batch, self._seed = population or default_population(dimension), batch, seed
        self.later = batch
        self._features = Features.of(axes)
        known = starting_points(start, dimension, self.population)
        self._axes, self._known = tuple(axes), len(known)
        self._ranges = Ranges.of(axes)
        self._first = np.vstack([known, self._ranges.inside(sobol(axes, self.population - len(known), seed))])
        self._genomes = np.empty((0, dimension))
        self._values = np.empty((0, 1))
        self._error_bars = np.empty(0)
        self._fits: dict[int, list[Hyperparameters]] = {}  # of the last number of genomes that was fitted
        self._limits: list[tuple[Points, Values]] = []  # genomes, and their numbers that have to be 0 or more
        self._limit_models: tuple[int, list[Limit]] = 0, []  # by so many of these
        self._transfer = None
        if transfer and earlier is not None and len(earlier.genomes) > 1:
            self._transfer = Transfer.of(earlier, self._features, self._ranges)

    def ask(self) -> Points:
        """The next generation, (genomes, dimension)."""
        return np.array(list(self.ask_in_turn()))

    def ask_in_turn(self) -> Iterator[Values]:
        """The genomes of the next generation, each (dimension,), as soon as it is known."""
        count = len(self._genomes)
        if not count:
            yield from self._first.copy()
            return
        generator = np.random.default_rng([self._seed, 2, count])
        processes, values = self._processes(), self._standardized()
        asked: list[Values] = []
        for _ in range(self._batch):
            known = np.vstack([self._genomes, *(point[None] for point in asked)])
            asked.append(self._proposed(processes, known, generator))
            yield self._ranges.inside(asked[-1][None])[0]
            if len(asked) == self._batch:
                return
            believed = self._features(asked[-1][None])
            values = np.vstack([values, [[process.predict(believed)[0][0] for process in processes]]])
            processes = self._conditioned(
                [process.hyper for process in processes], np.vstack([known, asked[-1]]), values
            )

    def ask_one(self, number: int, pending: Points) -> Values:
        """The next genome, (dimension,), as if those that are pending had been told the model's own mean."""
        if number < self.population:
            return np.asarray(self._first[number])
        if len(self._genomes) < self.population:
            return np.asarray(self._ranges.inside(sobol(self._axes, number - self._known + 1, self._seed))[-1])
        processes, values = self._processes(), self._standardized()
        known = np.vstack([self._genomes, self._ranges.outside(pending)])
        if len(pending):  # one after the other or all at once: a process that is told its own mean keeps that mean
            believed = self._features(known[len(values) :])
            means = np.stack([process.predict(believed)[0] for process in processes], axis=1)
            processes = self._conditioned([each.hyper for each in processes], known, np.vstack([values, means]))
        generator = np.random.default_rng([self._seed, 3, number])
        return np.asarray(self._ranges.inside(self._proposed(processes, known, generator)[None])[0])

    def _proposed(
        self, processes: Sequence[Process], known: Points, generator: np.random.Generator
    ) -> NDArray[np.float64]:
        seen = self._features(known)
        means = np.stack([process.predict(seen)[0] for process in processes], axis=1)  # (known, objectives)
        limits = self._limited()
        kept = np.min([limit.margin(seen) for limit in limits], axis=0) if limits else np.zeros(len(known))
        if len(processes) == 1:
            merit = means[:, 0]
            one = Improvement(processes[0], float(merit[kept >= 0].max(initial=-np.inf)))
            merit = np.where(kept >= 0, merit, merit.min() + kept)
            if not limits:
                return proposed(self._around(known, merit, processes), one, one.slope, generator)
            among = (one, one.slope) if (kept >= 0).any() else (None, None)
            limited = Limited(limits, *among)
            return proposed(self._around(known, merit, processes), limited, limited.slope, generator)
        weights = generator.dirichlet(np.ones(len(processes)))
        low, high = means.min(axis=0), means.max(axis=0)
        merit = scalarized(means, weights, low, high)
        normals = generator.normal(size=(SAMPLES, len(processes)))
        best = float(merit[kept >= 0].max(initial=-np.inf))
        merit = np.where(kept >= 0, merit, merit.min() + kept)
        several = ScalarizedImprovement(processes, weights, low, high, best, normals)
        if not limits:
            return proposed(self._around(known, merit, processes), several, None, generator)
        limited = Limited(limits, several if (kept >= 0).any() else None, None)
        return proposed(self._around(known, merit, processes), limited, None, generator)

    def _limited(self) -> list[Limit]:
        """A model of each number that has to be 0 or more."""
        if not self._limits:
            return []
        if self._limit_models[0] == len(self._limits):
            return self._limit_models[1]
        genomes, numbers = (np.concatenate(each) for each in zip(*self._limits, strict=True))
        features = self._features(self._ranges.outside(genomes))
        models = [Limit.of(features, self._features.gene, column) for column in numbers.T]
        self._limit_models = len(self._limits), models
        return models

    def _around(self, known: Points, merit: Values, processes: Sequence[Process]) -> Around:
        """Near the best genomes by `merit`, (known,), and in all of the cube; of many genes, in the trust region."""
        best = known[(-merit).argsort(kind="stable")[:BEST]]
        genes, told = self._genomes.shape[1], self._values.mean(axis=1)
        low, high = self._ranges.grown(self._genomes, told, self.population, self._batch)
        if genes < LOCAL:
            return Around(self._features, best, known, low, high)
        edge = length(told, self.population, self._batch, genes)
        scales = np.exp(np.mean([np.log(process.hyper.scales) for process in processes], axis=0))
        return Around(self._features, best, known, *box(best[0], edge, scales, low, high))

    def _standardized(self) -> Values:
        return np.stack([standardized(column)[0] for column in self._values.T], axis=1)

    def _processes(self) -> list[Process]:
        """The models of all that was told, one for each objective."""
        count = fitted_on(len(self._genomes))
        if count not in self._fits:
            features, noise = self._features(self._genomes[:count]), self._noise(count)
            columns = [standardized(column)[0] for column in self._values[:count].T]
            if self._transfer and (weight := self._weight(count)):
                columns = [columns[0] - weight * self._transfer.mean(features)]
            fits = [fitted(features, self._features.gene, column, noise) for column in columns]
            self._fits = {count: fits}
        return self._conditioned(self._fits[count], self._genomes, self._standardized())

    def _conditioned(self, hyper: Sequence[Hyperparameters], genomes: Points, values: Values) -> list[Process]:
        features = self._features(genomes)
        noise = self._noise(len(self._genomes))
        if noise is not None:
            noise = np.concatenate([noise, np.zeros(len(genomes) - len(noise))])
        if self._transfer and (weight := self._weight(fitted_on(len(self._genomes)))):
            return [Shifted(features, self._features.gene, values[:, 0], hyper[0], noise, self._transfer, weight)]
        return [
            GaussianProcess(features, self._features.gene, column, each, noise)
            for each, column in zip(hyper, values.T, strict=True)
        ]

    def _weight(self, count: int) -> float:
        """By how much the earlier run's mean counts by the first `count` genomes; 0 of several objectives."""
        if self._transfer is None or not count or self._values.shape[1] > 1:
            return 0.0
        features, values = self._features(self._genomes[:count]), standardized(self._values[:count, 0])[0]
        return self._transfer.weight(features, values)

    @property
    def transferred(self) -> float | None:
        """By how much an earlier run's mean counts now, 0 where it does not help; None without an earlier run."""
        count = len(self._genomes)
        return None if self._transfer is None else self._weight(fitted_on(count) if count else 0)

    def _noise(self, count: int) -> Values | None:
        """(count,), known variances of the standardized fitness; None where no error bar is known."""
        if not self._error_bars[:count].any() or self._values.shape[1] > 1:
            return None
        _, scale = standardized(self._values[:count, 0])
        return (self._error_bars[:count] / scale) ** 2

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Learn from a generation with one objective."""
        self.tell_estimates(genomes, fitness[:, None], np.zeros(len(fitness)))

    def tell_estimates(self, genomes: Points, objectives: NDArray[np.float64], error_bars: NDArray[np.float64]) -> None:
        """Learn from a generation: (n, objectives), and the standard errors of the fitness, (n,), 0 where exact.

        Of several objectives no standard errors are known: their noise is estimated.
        """
        if not len(self._values):
            self._values = np.empty((0, objectives.shape[1]))
        self._genomes = np.vstack([self._genomes, self._ranges.outside(genomes)])
        self._values = np.vstack([self._values, objectives])
        self._error_bars = np.concatenate([self._error_bars, error_bars])

    def tell_one(self, number: int, result: Result) -> None:
        """Learn from one genome."""
        self.tell_estimates(result.genome[None], result.objectives[None], np.array([result.error_bar]))

    def tell_constraints(self, genomes: Points, numbers: Values) -> None:
        """Learn what has to be 0 or more, (genomes, limits), of genomes that were told."""
        self._limits.append((genomes, numbers))

    def learnt(self) -> Learnt | None:
        """The model of the fitness by all that was told; None before, and where there are several objectives."""
        if len(self._genomes) < 2 or self._values.shape[1] > 1:
            return None
        column = self._values[:, 0]
        centre, scale = float(raised(column).mean()), standardized(column)[1]
        return Learnt(self._processes()[0], self._features, self._ranges, centre, scale)

    def close(self) -> None:
        """Nothing to release."""


def fitted_on(count: int) -> int:
    """How many of `count` genomes hyperparameters are fitted to: the same for some 5 % more, as fits cost count^3."""
    fitted_to = 1
    while (following := fitted_to + 1 + fitted_to // 20) <= count:
        fitted_to = following
    return fitted_to
