"""Outcome constraints: numbers of a genome that have to be 0 or more, each with a model of its own.

Gardner et al., Bayesian Optimization with Inequality Constraints, ICML 2014: expected improvement over the best genome
that keeps all limits, times the probability of keeping them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from evohydra.searching.optimizers.gaussian.improvement import LOG_ROOT_2PI
from evohydra.searching.optimizers.gaussian.model import GaussianProcess, fitted
from evohydra.searching.optimizers.gaussian.proposal import Acquisition, Slope

Values = NDArray[np.float64]
FARTHEST = 20.0  # standard deviations beyond which a limit is as good as surely kept, or broken


@dataclass(frozen=True)
class Limit:
    """A model of one number that has to be 0 or more: `centre` + `scale` times the values of `process`."""

    process: GaussianProcess
    centre: float
    scale: float

    @classmethod
    def of(cls, features: Values, gene: NDArray[np.intp], numbers: Values) -> "Limit":
        """The model of `numbers`, (n,), at genomes with these features."""
        centre, scale = float(numbers.mean()), float(numbers.std()) or 1.0
        values = (numbers - centre) / scale
        return cls(GaussianProcess(features, gene, values, fitted(features, gene, values)), centre, scale)

    def margin(self, features: Values) -> Values:
        """(m, features) -> (m,): how many standard deviations the number is expected above 0."""
        mean, deviation = self.process.predict(features)
        found: Values = np.clip((self.centre / self.scale + mean) / deviation, -FARTHEST, FARTHEST)
        return found

    def slope(self, features: Values) -> tuple[float, Values]:
        """The logarithm of the probability that the limit is kept at one point, (features,), and its gradient."""
        mean, deviation, of_mean, of_deviation = self.process.gradients(features)
        z = (self.centre / self.scale + mean) / deviation
        kept = float(log_ndtr(np.clip(z, -FARTHEST, FARTHEST)))
        if abs(z) >= FARTHEST:
            return kept, np.zeros(len(features))
        ratio = math.exp(-0.5 * z * z - LOG_ROOT_2PI - kept)
        return kept, ratio * (of_mean - z * of_deviation) / deviation


def log_kept(limits: Sequence[Limit], features: Values) -> Values:
    """(m, features) -> (m,): the logarithm of the probability that all limits are kept."""
    found: Values = np.sum([log_ndtr(limit.margin(features)) for limit in limits], axis=0)
    return found


@dataclass(frozen=True)
class Limited:
    """What `worth` says of a candidate, where all limits are kept; None: how likely they are is all that counts."""

    limits: Sequence[Limit]
    worth: Acquisition | None
    slope_of_worth: Slope | None

    def __call__(self, features: Values) -> Values:
        """(m, features) -> (m,)."""
        kept = log_kept(self.limits, features)
        return kept if self.worth is None else kept + self.worth(features)

    def slope(self, features: Values) -> tuple[float, Values]:
        """The value at one point, (features,), and its gradient, (features,)."""
        told = [limit.slope(features) for limit in self.limits]
        told += [self.slope_of_worth(features)] if self.slope_of_worth else []
        return sum(value for value, _ in told), np.sum([gradient for _, gradient in told], axis=0)
