"""The strategies of the package cmaes for thousands of genes: the same equations with less memory and time.

The package multiplies whole matrices for each sample (n^3) and holds an n x n matrix for each member of a generation:
19 GB for the 4288 genes and 128 members of arXiv 2403.13187. Here a sample costs n^2, and there are four such matrices.
The eigendecomposition (n^3) is made again when the covariance has had time to change (Hansen, arXiv 1604.00772,
B.2), which for fewer than some 100 genes is every generation.
"""

import math
from typing import Any

import cmaes
import numpy as np
from numpy.typing import NDArray

from evohydra.checks.libraries import PrivateParts

Vector = NDArray[np.float64]
TESTED = "0.13.1"
COMMON = (
    "_mean", "_C", "_p_sigma", "_pc", "_weights", "_sigma", "_mu", "_mu_eff", "_c1", "_cmu", "_cc", "_c_sigma",
    "_d_sigma", "_chi_n", "_g", "_rng", "_eigen_decomposition",
)  # fmt: skip
PARTS = (
    PrivateParts(
        "cmaes", TESTED, "cmaes:CMA()", (*COMMON, "_B", "_D", "_funhist_term", "_funhist_values", "_sample_solution")
    ),
    PrivateParts("cmaes", TESTED, "cmaes:CMAwM()", ("_cma",)),
    PrivateParts(
        "cmaes", TESTED, "cmaes:CatCMAwM()",
        (*COMMON, "_A", "_continuous_idx", "_x_space", "_popsize", "_iqhist_values", "_min_eigenvalue",
         "_calc_continuous_penalty", "_sample_from_gaussian", "_update_gaussian"),
    ),
    PrivateParts("cmaes", TESTED, "cmaes:CatCMAwM.Solution()", ("_v_raw",)),
)  # fmt: skip


class _Lean:
    """What `cmaes.CMA` and `cmaes.CatCMAwM` have in common, on their own attributes (`PARTS`)."""

    _mean: Vector
    _C: NDArray[np.float64]
    _p_sigma: Vector
    _pc: Vector
    _weights: Vector
    _sigma: float
    _mu: int
    _mu_eff: float
    _c1: float
    _cmu: float
    _cc: float
    _c_sigma: float
    _d_sigma: float
    _chi_n: float
    _g: int
    _rng: Any

    def _begin(self) -> None:
        n = len(self._mean)
        self._B, self._D = np.eye(n), np.ones(n)  # of C = I
        self._root: NDArray[np.float64] = np.eye(n)
        self._decomposed = self._g
        self._gap = max(1, math.floor(1 / (10 * n * (self._c1 + self._cmu))))

    def _eigen_decomposition(self) -> tuple[NDArray[np.float64], Vector]:
        """(B, D) of C = B diag(D)^2 B^T, as it was at most `_gap` generations ago."""
        if self._g - self._decomposed >= self._gap:
            self._C = (self._C + self._C.T) / 2
            squares, self._B = np.linalg.eigh(self._C)
            self._D = np.sqrt(np.where(squares < 0, 1e-8, squares))
            self._root = self._B * self._D
            self._decomposed = self._g
        return self._B, self._D

    def _step(self) -> Vector:
        """A sample of N(0, C), (n,)."""
        self._eigen_decomposition()
        step: Vector = self._root @ self._rng.randn(len(self._mean))
        return step

    def _adapt(self, steps: NDArray[np.float64]) -> None:
        """The update by the steps from the mean, (population, n), the best one first (equations 41 to 47)."""
        axes, lengths = self._B, self._D  # those that the steps were sampled with
        n = len(self._mean)
        mean_step = self._weights[: self._mu] @ steps[: self._mu]
        self._mean = self._mean + self._sigma * mean_step
        whitened = axes @ ((axes.T @ mean_step) / lengths)
        memory = math.sqrt(self._c_sigma * (2 - self._c_sigma) * self._mu_eff)
        self._p_sigma = (1 - self._c_sigma) * self._p_sigma + memory * whitened
        norm = float(np.linalg.norm(self._p_sigma))
        self._sigma = min(self._sigma * math.exp(self._c_sigma / self._d_sigma * (norm / self._chi_n - 1)), 1e32)
        expected = math.sqrt(1 - (1 - self._c_sigma) ** (2 * (self._g + 1))) * (1.4 + 2 / (n + 1)) * self._chi_n
        moving = 1.0 if norm < expected else 0.0
        self._pc = (1 - self._cc) * self._pc + moving * math.sqrt(self._cc * (2 - self._cc) * self._mu_eff) * mean_step
        squares = (((steps @ axes) / lengths) ** 2).sum(axis=1)  # (population,)
        weights = self._weights * np.where(self._weights >= 0, 1, n / (squares + 1e-8))
        stalled = (1 - moving) * self._cc * (2 - self._cc)
        self._C *= 1 + self._c1 * stalled - self._c1 - self._cmu * self._weights.sum()
        self._C += (self._cmu * weights * steps.T) @ steps
        self._C += np.outer(self._c1 * self._pc, self._pc)


class LeanCMA(_Lean, cmaes.CMA):  # type: ignore[misc]
    """`cmaes.CMA`."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        super().__init__(*arguments, **settings)
        self._begin()

    def _sample_solution(self) -> Vector:
        return self._mean + self._sigma * self._step()

    def tell(self, solutions: list[tuple[Vector, float]]) -> None:
        """Tell evaluation values; the list is sorted."""
        self._g += 1
        solutions.sort(key=lambda solution: solution[1])
        at = 2 * (self._g % self._funhist_term)
        self._funhist_values[at : at + 2] = solutions[0][1], solutions[-1][1]
        steps = (np.array([x for x, _ in solutions]) - self._mean) / self._sigma
        self._adapt(steps)


class LeanCMAwM(cmaes.CMAwM):  # type: ignore[misc]
    """`cmaes.CMAwM`."""

    def __init__(self, *, mean: Vector, sigma: float, bounds: NDArray[np.float64], steps: Vector, seed: int,
                 population_size: int, n_max_resampling: int) -> None:  # fmt: skip
        super().__init__(mean, sigma, bounds, steps, n_max_resampling, seed, population_size)
        self._cma = LeanCMA(mean, sigma, bounds, n_max_resampling, seed, population_size)


def solution(continuous: Vector, integers: Vector, choices: NDArray[Any], normal: Vector | None) -> object:
    """What `cmaes.CatCMAwM` is told of a genome as if it had sampled it; `normal` is its sample before rounding."""
    return cmaes.CatCMAwM.Solution(x=continuous, z=integers, c=choices, _v_raw=normal)


class LeanCatCMAwM(_Lean, cmaes.CatCMAwM):  # type: ignore[misc]
    """`cmaes.CatCMAwM`, that begins with equal deviations, draws again what lies outside, and knows plateaus."""

    def __init__(self, *, resampling: int, gaussians: int, **settings: object) -> None:
        super().__init__(**settings, cov=np.eye(gaussians))
        self._resampling = resampling
        if gaussians:
            self._begin()

    def _sample_from_gaussian(self) -> Vector:
        """(continuous and integer coordinates,); what the package would clip to a bound is drawn again."""
        point: Vector
        for _ in range(self._resampling):
            point = self._mean + self._sigma * self._A * self._step()
            inside = point[self._continuous_idx]
            if ((inside >= self._x_space[:, 0]) & (inside <= self._x_space[:, 1])).all():
                return point
        point = self._mean + self._sigma * self._A * self._step()
        return point

    def _calc_continuous_penalty(self, points: NDArray[np.float64], fitness: Vector) -> Vector:
        """(population,); zero as long as all fitness was equal, where the package divides by nothing."""
        spread = fitness[3 * self._popsize // 4] - fitness[self._popsize // 4]
        if not self._iqhist_values and not spread > 0:
            return np.zeros(self._popsize)
        penalty: Vector = super()._calc_continuous_penalty(points, fitness)
        return penalty

    def _update_gaussian(self, points: NDArray[np.float64]) -> None:
        steps = (points - self._mean) / self._A / self._sigma
        self._adapt(steps)
        _, lengths = self._eigen_decomposition()
        self._sigma = max(self._sigma, math.sqrt(self._min_eigenvalue / lengths.min()))
