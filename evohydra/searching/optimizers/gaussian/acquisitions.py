"""What makes a genome worth evaluating: expected improvement of one value, or of a scalarization of several."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evohydra.searching.optimizers.gaussian.improvement import log_improvement, slope_of_log_h
from evohydra.searching.optimizers.gaussian.model import Process

Values = NDArray[np.float64]
SAMPLES = 64  # of the values of a candidate
AUGMENTED = 0.05  # Knowles, ParEGO, IEEE Trans. Evol. Comput. 10, 2006, equation 2


@dataclass(frozen=True)
class Improvement:
    """Log expected improvement over `best`."""

    process: Process
    best: float

    def __call__(self, features: Values) -> Values:
        """(m, features) -> (m,)."""
        return log_improvement(*self.process.predict(features), self.best)

    def slope(self, features: Values) -> tuple[float, Values]:
        """The value at one point, (features,), and its gradient, (features,)."""
        mean, deviation, of_mean, of_deviation = self.process.gradients(features)
        z = (mean - self.best) / deviation
        value = log_improvement(np.array([mean]), np.array([deviation]), self.best)[0]
        return float(value), (slope_of_log_h(z) * (of_mean - z * of_deviation) + of_deviation) / deviation


@dataclass(frozen=True)
class ScalarizedImprovement:
    """Log expected improvement of a weighted Chebyshev scalarization (qParEGO: Daulton et al., arXiv 2006.05078).

    low, high: (objectives,), the range that is scaled to the unit interval. normals: (SAMPLES, objectives), the same
    for all candidates, so that these are compared by the same luck.
    """

    processes: Sequence[Process]
    weights: Values
    low: Values
    high: Values
    best: float
    normals: Values

    def __call__(self, features: Values) -> Values:
        """(m, features) -> (m,)."""
        told = [process.predict(features) for process in self.processes]
        mean, deviation = (np.stack(each, axis=-1) for each in zip(*told, strict=True))  # (m, objectives)
        drawn = scalarized(mean + deviation * self.normals[:, None, :], self.weights, self.low, self.high)
        gain: Values = np.log(np.maximum(drawn - self.best, 0.0).mean(axis=0) + 1e-300)
        # where no sample gains anything, what comes nearest is better
        return np.where(gain > -600, gain, -600 + np.minimum(drawn.max(axis=0) - self.best, 0.0))


def scalarized(values: Values, weights: Values, low: Values, high: Values) -> Values:
    """(..., objectives), larger is better, and weights, (objectives,), -> (...): the worst weighted objective counts.

    Objectives that are all equal so far count nothing.
    """
    span = np.where(high > low, high - low, np.inf)
    lost = weights * (high - values) / span  # of the best value seen of each
    found: Values = -lost.max(axis=-1) - AUGMENTED * lost.sum(axis=-1)
    return found
