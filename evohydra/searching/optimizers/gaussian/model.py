"""Exact Gaussian processes with a length scale for each gene (Rasmussen and Williams 2006, chapters 2 and 5)."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

Values = NDArray[np.float64]
JITTER = 1e-8
ROOT5 = math.sqrt(5.0)
NOISE = (math.log(1e-3), 1.5)  # mean and deviation of the logarithm of the noise variance, of standardized values
SIGNAL = (0.0, 1.0)  # and of the signal's
BOUNDS = {"scale": (math.log(1e-2), math.log(1e4)), "signal": (-4.0, 4.0), "noise": (math.log(1e-6), math.log(2.0))}


@dataclass(frozen=True)
class Hyperparameters:
    """scales: (genes,), length scales in edges of the unit cube. signal, noise: variances of standardized values."""

    scales: Values
    signal: float
    noise: float

    @classmethod
    def expected(cls, genes: int) -> "Hyperparameters":
        """The centre of the prior: length scales grow with the square root of the dimension (arXiv 2402.02229)."""
        return cls(np.full(genes, math.exp(location(genes))), math.exp(SIGNAL[0]), math.exp(NOISE[0]))


SHORTER = 2.0  # than in that paper, in logarithms; docs/optimizers.md has the measurements
SPREAD = 1.0  # the deviation of the logarithm of a length scale; sqrt 3 in that paper


def location(genes: int) -> float:
    """The mean of the logarithm of a length scale."""
    return math.sqrt(2.0) + 0.5 * math.log(genes) - SHORTER


class Process(Protocol):
    """A model of standardized values, `values` (n,), with normal predictions."""

    hyper: Hyperparameters
    values: Values

    def predict(self, features: Values) -> tuple[Values, Values]:
        """Mean and standard deviation of the function without noise at `features`, (m, features): (m,) each."""
        ...

    def gradients(self, features: Values) -> tuple[float, float, Values, Values]:
        """At one point, (features,): mean, standard deviation, and their gradients, (features,) each."""
        ...


class GaussianProcess:
    """A posterior over functions: Matern 5/2, constant mean by generalised least squares, independent noise.

    features: (n, features); gene: (features,), which gene each belongs to; values: (n,), standardized. known: (n,),
    variances of noise that are known, on top of those of `hyper`.
    """

    def __init__(
        self,
        features: Values,
        gene: NDArray[np.intp],
        values: Values,
        hyper: Hyperparameters,
        known: Values | None = None,
    ) -> None:
        self.hyper, self.gene, self._features = hyper, gene, features
        self._scaled = features / hyper.scales[gene]
        known = np.zeros(len(values)) if known is None else known
        covariance = hyper.signal * matern(squared_distances(self._scaled, self._scaled))
        covariance[np.diag_indices(len(values))] += hyper.noise + known + JITTER
        self._factor: Values = np.tril(cho_factor(covariance, lower=True)[0])
        ones = self._solve(np.ones(len(values)))
        self.mean = float(ones @ values / ones.sum())
        self._weights = self._solve(values - self.mean)
        self.values = values

    def _solve(self, right: Values) -> Values:
        found: Values = cho_solve((self._factor, True), right)
        return found

    def predict(self, features: Values) -> tuple[Values, Values]:
        """Mean and standard deviation of the function without noise at `features`, (m, features): (m,) each."""
        cross = self.hyper.signal * matern(squared_distances(features / self.hyper.scales[self.gene], self._scaled))
        half = solve_triangular(self._factor, cross.T, lower=True)  # (n, m)
        variance = np.maximum(self.hyper.signal - (half**2).sum(axis=0), 1e-12)
        return self.mean + cross @ self._weights, np.sqrt(variance)

    def gradients(self, features: Values) -> tuple[float, float, Values, Values]:
        """At one point, (features,): mean, standard deviation, and their gradients, (features,) each."""
        scales = self.hyper.scales[self.gene]
        steps = features / scales - self._scaled  # (n, features)
        squared = (steps**2).sum(axis=1)
        cross = self.hyper.signal * matern(squared)
        slope = (2 * self.hyper.signal * matern_slope(squared))[:, None] * steps / scales  # (n, features)
        solved = self._solve(cross)
        deviation = math.sqrt(max(self.hyper.signal - float(cross @ solved), 1e-12))
        mean = self.mean + float(cross @ self._weights)
        return mean, deviation, slope.T @ self._weights, -(slope.T @ solved) / deviation


def matern(squared: Values) -> Values:
    """Matern 5/2 of squared scaled distances."""
    distance = ROOT5 * np.sqrt(squared)
    found: Values = (1 + distance + distance**2 / 3) * np.exp(-distance)
    return found


def matern_slope(squared: Values) -> Values:
    """Its derivative with respect to the squared distance."""
    distance = ROOT5 * np.sqrt(squared)
    found: Values = -5 / 6 * (1 + distance) * np.exp(-distance)
    return found


def squared_distances(one: Values, other: Values) -> Values:
    """(n, k) and (m, k) -> (n, m)."""
    squared: Values = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    return np.maximum(squared, 0.0)


def fitted(
    features: Values, gene: NDArray[np.intp], values: Values, known: Values | None = None, iterations: int = 100
) -> Hyperparameters:
    """The most probable hyperparameters (MAP) of standardized `values`, (n,), from the centre of the prior."""
    genes = int(gene[-1]) + 1
    first = Hyperparameters.expected(genes)
    start = np.concatenate([np.log(first.scales), np.log([first.signal, first.noise])])
    bounds = [*[BOUNDS["scale"]] * genes, BOUNDS["signal"], BOUNDS["noise"]]
    found = minimize(
        negative_log_posterior,
        start,
        args=(features, gene, values, known),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": iterations, "ftol": 1e-6},
    )
    best = found.x if np.isfinite(found.fun) else start
    return Hyperparameters(np.exp(best[:genes]), float(np.exp(best[genes])), float(np.exp(best[genes + 1])))


def negative_log_posterior(
    logs: Values, features: Values, gene: NDArray[np.intp], values: Values, known: Values | None = None
) -> tuple[float, Values]:
    """Of the logarithms of length scales, signal and noise, (genes + 2,); and its gradient.

    -log p(values | hyperparameters) (Rasmussen and Williams, equations 5.8 and 5.9) minus the log-densities of the
    priors of the logarithms, which are normal; without constants.
    """
    count, genes = len(values), len(logs) - 2
    scales, signal, noise = np.exp(logs[:genes]), math.exp(logs[genes]), math.exp(logs[genes + 1])
    scaled = features / scales[gene]
    squared = squared_distances(scaled, scaled)
    kernel = signal * matern(squared)
    covariance = kernel + np.diag((noise + JITTER) + (np.zeros(count) if known is None else known))
    try:
        factor = cho_factor(covariance, lower=True)
    except np.linalg.LinAlgError:
        return math.inf, np.zeros(len(logs))
    inverse: Values = cho_solve(factor, np.eye(count))
    ones = inverse.sum(axis=0)
    centred = values - float(ones @ values / ones.sum())
    weights = inverse @ centred
    outer = np.outer(weights, weights) - inverse  # d log p = trace(outer dK) / 2
    slope = outer * (signal * matern_slope(squared))
    # sum_ij slope_ij (a_i - a_j)^2 = 2 sum_i a_i^2 sum_j slope_ij - 2 a' slope a, for each feature a
    sums = 2 * (slope.sum(axis=1) @ scaled**2 - np.einsum("if,if->f", scaled, slope @ scaled))
    by_gene = np.bincount(gene, weights=sums, minlength=genes)
    gradient = np.concatenate([by_gene, [-0.5 * float((outer * kernel).sum()), -0.5 * noise * float(np.trace(outer))]])
    value = 0.5 * float(centred @ weights) + float(np.log(np.diag(factor[0])).sum())
    centre = np.concatenate([np.full(genes, location(genes)), [SIGNAL[0], NOISE[0]]])
    spread = np.concatenate([np.full(genes, SPREAD), [SIGNAL[1], NOISE[1]]])
    off = (logs - centre) / spread
    return value + 0.5 * float(off @ off), gradient + off / spread
