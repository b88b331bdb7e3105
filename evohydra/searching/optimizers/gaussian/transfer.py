"""What an earlier run over the same genes has learnt, as the mean that a model of this run begins from."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from evohydra.searching.optimizers import Points
from evohydra.searching.optimizers.gaussian.features import Features
from evohydra.searching.optimizers.gaussian.model import GaussianProcess, Hyperparameters, fitted
from evohydra.searching.optimizers.gaussian.ranges import Ranges
from evohydra.searching.optimizers.gaussian.scaling import standardized

Values = NDArray[np.float64]
MOST = 300  # genomes of the earlier run: the best half of so many, and others at even distances
LEAST = 8  # genomes of this run before it can be told whether the earlier one helps
HELPS = 0.3  # rank correlation of what the earlier run expects with what came, below which it is left out
STEEPEST = 2.0


class Earlier(NamedTuple):
    """An earlier run: genomes, (n, genes) in the unit cube, and their fitness, (n,)."""

    genomes: Points
    fitness: Values


@dataclass(frozen=True)
class Transfer:
    """The mean of an earlier run's model, standardized."""

    process: GaussianProcess

    @classmethod
    def of(cls, earlier: Earlier, features: Features, ranges: Ranges) -> "Transfer":
        """The model of all of an earlier run, or of MOST of its genomes."""
        order = np.argsort(-earlier.fitness, kind="stable")
        if len(order) > MOST:
            rest = order[MOST // 2 :]
            order = np.concatenate([order[: MOST // 2], rest[np.linspace(0, len(rest) - 1, MOST // 2).astype(int)]])
        seen, values = features(ranges.outside(earlier.genomes[order])), standardized(earlier.fitness[order])[0]
        return cls(GaussianProcess(seen, features.gene, values, fitted(seen, features.gene, values)))

    def mean(self, features: Values) -> Values:
        """(m, features) -> (m,)."""
        return self.process.predict(features)[0]

    def weight(self, features: Values, values: Values) -> float:
        """By how much the earlier run's mean counts for standardized `values`, (n,), of this run; 0: not at all.

        The slope of a straight line through both, where the earlier run ranks the genomes of this one.
        """
        if len(values) < LEAST:
            return 0.0
        expected = self.mean(features)
        if np.ptp(expected) == 0 or np.ptp(values) == 0 or scipy.stats.spearmanr(expected, values).statistic < HELPS:
            return 0.0
        centred = expected - expected.mean()
        return float(np.clip(centred @ values / (centred @ centred), 0.0, STEEPEST))


class Shifted:
    """A process of what is left of the values once `weight` times the earlier run's mean is taken off them."""

    def __init__(
        self,
        features: Values,
        gene: NDArray[np.intp],
        values: Values,
        hyper: Hyperparameters,
        known: Values | None,
        transfer: Transfer,
        weight: float,
    ) -> None:
        self._transfer, self._weight, self.hyper = transfer, weight, hyper
        self._rest = GaussianProcess(features, gene, values - weight * transfer.mean(features), hyper, known)
        self.values = values

    def predict(self, features: Values) -> tuple[Values, Values]:
        """Mean and standard deviation at `features`, (m, features): (m,) each."""
        mean, deviation = self._rest.predict(features)
        return mean + self._weight * self._transfer.mean(features), deviation

    def gradients(self, features: Values) -> tuple[float, float, Values, Values]:
        """At one point, (features,): mean, standard deviation, and their gradients, (features,) each."""
        mean, deviation, of_mean, of_deviation = self._rest.gradients(features)
        earlier, _, of_earlier, _ = self._transfer.process.gradients(features)
        return mean + self._weight * earlier, deviation, of_mean + self._weight * of_earlier, of_deviation
