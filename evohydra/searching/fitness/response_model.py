"""The two-parameter logistic model of item response theory: which models solve which examples.

P(model i solves example j) = 1 / (1 + exp(-(alpha_j . theta_i - beta_j))), as in tinyBenchmarks (arXiv 2402.14992,
section 3.2) and MERGE3 (arXiv 2502.10436), with abilities theta and slopes alpha of one dimension or more. Scores
between 0 and 1 enter the same likelihood as shares of successes (Papke and Wooldridge, Journal of Applied Econometrics
1996): means are then right, error bars too wide.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

# Standard deviations of the normal priors: what little data cannot tell stays near the ordinary.
ABILITY, SLOPE, OFFSET = 2.0, 0.5, 3.0
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Items:
    """slopes: (examples, dimensions). offsets: (examples,), how hard each example is."""

    slopes: Array
    offsets: Array

    def chances(self, abilities: Array) -> Array:
        """(..., examples) chances of success at `abilities`, (..., dimensions)."""
        found: Array = expit(abilities @ self.slopes.T - self.offsets)
        return found


@dataclass(frozen=True)
class Ability:
    """A model's ability, (dimensions,), and the covariance of its error, (dimensions, dimensions)."""

    mean: Array
    covariance: Array


def fit(responses: Array, dimensions: int = 1) -> tuple[Items, Array]:
    """Items and abilities, (models, dimensions), of the highest posterior density.

    responses: (models, examples) scores in [0, 1], NaN where there is none. Slopes lie around 1 in the first dimension
    and around 0 in others.
    """
    models, examples = responses.shape
    rows, columns = np.nonzero(~np.isnan(responses))
    scores = responses[rows, columns]
    usual = np.zeros(dimensions)
    usual[0] = 1.0

    def unpack(flat: Array) -> tuple[Array, Array, Array]:
        abilities, slopes, offsets = np.split(flat, np.cumsum((models * dimensions, examples * dimensions)))
        return abilities.reshape(models, dimensions), slopes.reshape(examples, dimensions), offsets

    def summed(values: Array, places: NDArray[np.intp], count: int) -> Array:
        return np.stack([np.bincount(places, column, count) for column in values.T], axis=1)

    def loss(flat: Array) -> tuple[float, Array]:
        abilities, slopes, offsets = unpack(flat)
        logits = np.einsum("ij,ij->i", abilities[rows], slopes[columns]) - offsets[columns]  # (scores,)
        chances = expit(logits)
        error = (chances - scores)[:, None]
        value = float((-np.log1p(-np.minimum(chances, 1 - 1e-15)) - scores * logits).sum())
        value += float((abilities**2).sum()) / (2 * ABILITY**2) + float(((slopes - usual) ** 2).sum()) / (2 * SLOPE**2)
        value += float((offsets**2).sum()) / (2 * OFFSET**2)
        gradients = (
            summed(error * slopes[columns], rows, models) + abilities / ABILITY**2,
            summed(error * abilities[rows], columns, examples) + (slopes - usual) / SLOPE**2,
            -summed(error, columns, examples)[:, 0] + offsets / OFFSET**2,
        )
        return value, np.concatenate([gradient.ravel() for gradient in gradients])

    found = minimize(loss, _start(responses, usual), jac=True, method="L-BFGS-B", options={"maxiter": 100})
    abilities, slopes, offsets = unpack(found.x)
    return Items(slopes, offsets), abilities


def _start(responses: Array, usual: Array) -> Array:
    """Abilities and offsets from the means of rows and columns; further dimensions from what these leave over."""
    known = ~np.isnan(responses)
    filled = np.where(known, responses, 0.0)

    def logits(axis: int) -> Array:
        share: Array = (filled.sum(axis=axis) + 0.5) / (known.sum(axis=axis) + 1)
        return np.asarray(np.log(share / (1 - share)))

    abilities = np.zeros((len(responses), len(usual)))
    offsets = -logits(0)
    abilities[:, 0] = logits(1) - logits(1).mean()
    slopes = np.tile(usual, (responses.shape[1], 1))
    if len(usual) > 1:
        left = np.where(known, responses - expit(abilities @ slopes.T - offsets), 0.0)
        u, s, v = np.linalg.svd(left, full_matrices=False)
        more = min(len(usual) - 1, len(s))
        abilities[:, 1 : 1 + more] = u[:, :more] * np.sqrt(len(u))
        slopes[:, 1 : 1 + more] = v[:more].T * np.sqrt(len(v.T)) * 0.1
    return np.concatenate([abilities.ravel(), slopes.ravel(), offsets])


def locate(items: Items, places: NDArray[np.intp], scores: Array, centre: Array, spread: float) -> Ability:
    """The ability that `scores` (seen,) on the examples at `places` tell of, with the prior N(centre, spread^2).

    Newton's method on the posterior, whose curvature at the end gives the covariance (Laplace).
    """
    slopes, offsets = items.slopes[places], items.offsets[places]
    dimensions = slopes.shape[1]
    precision = np.eye(dimensions) / spread**2
    ability = centre.astype(np.float64)
    for _ in range(50):
        chances = expit(slopes @ ability - offsets)
        curvature = slopes.T @ (slopes * (chances * (1 - chances))[:, None]) + precision
        step = np.linalg.solve(curvature, slopes.T @ (scores - chances) - precision @ (ability - centre))
        ability = ability + step * min(1.0, 2.0 / max(float(np.linalg.norm(step)), 1e-12))
        if float(np.abs(step).max()) < 1e-8:
            break
    return Ability(ability, np.linalg.inv(curvature))


def information(items: Items, ability: Ability) -> Array:
    """(examples,) how much each one would tell of an ability that is known as well as this one.

    Fisher's information p (1 - p) alpha^T C alpha, with the covariance C of what is known: what is sure tells nothing.
    """
    chances = items.chances(ability.mean)
    found: Array = chances * (1 - chances) * np.einsum("ij,jk,ik->i", items.slopes, ability.covariance, items.slopes)
    return found
