"""What a generation's genomes are asked about a benchmark, and what that tells of their mean over all of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evohydra.searching.fitness.estimators import Calibrated, Estimator
from evohydra.searching.fitness.response_model import Array, fit, information, locate

HELD_OUT = 0.2  # of the scores, for a look at how well the model expects them
LATEST = 20  # genomes whose abilities say which to expect


class Questions(Protocol):
    """What to ask a genome that was scored at `places`, in this order, with these scores, and what is known of it."""

    def further(self, places: Sequence[int], scores: Array, count: int) -> list[int]:
        """Up to `count` more examples."""
        ...

    def estimate(self, places: Sequence[int], scores: Array) -> tuple[float, float]:
        """The mean over all examples and its standard error."""
        ...


@dataclass(frozen=True)
class Random:
    """Examples in the order of `pool`, of `total` in all, and the mean of their scores."""

    pool: Sequence[int]
    total: int

    def further(self, places: Sequence[int], scores: Array, count: int) -> list[int]:
        """The next ones."""
        return list(self.pool[len(places) : len(places) + count])

    def estimate(self, places: Sequence[int], scores: Array) -> tuple[float, float]:
        """The mean, with the error of a draw without replacement; smoothed, for equal scores are no proof."""
        count = len(scores)
        spread = (float(((scores - scores.mean()) ** 2).sum()) + 0.25) / count
        return float(scores.mean()), math.sqrt(spread / count * (1 - count / self.total))


@dataclass(frozen=True)
class Adaptive:
    """The `drawn` first of `pool`, then those of it that tell most of the ability, as far as it is known."""

    known: Calibrated
    estimator: Estimator
    pool: Sequence[int]
    drawn: int

    def further(self, places: Sequence[int], scores: Array, count: int) -> list[int]:
        """The next ones; equally telling ones in the order of the pool."""
        if len(places) < self.drawn:
            return list(self.pool[len(places) : self.drawn])
        known = self.known
        ability = locate(known.items, np.array(places), scores, known.centre, known.spread)
        telling = information(known.items, ability)
        left = [place for place in self.pool if place not in set(places)]
        return sorted(left, key=lambda place: -telling[place])[:count]

    def estimate(self, places: Sequence[int], scores: Array) -> tuple[float, float]:
        """By the estimator."""
        found = self.estimator(self.known, places, scores, min(self.drawn, len(places)))
        return found.value, found.error


def calibrated(responses: Array, sources: int, dimensions: int, seed: Sequence[int]) -> tuple[Calibrated | None, str]:
    """What these scores tell of the examples, and how well; nothing where that is worse than knowing genomes' means.

    responses: (models, examples), NaN where there is no score; the first `sources` are those of the source models.
    """
    known = np.argwhere(~np.isnan(responses))
    generator = np.random.default_rng(seed)
    held = known[generator.random(len(known)) < HELD_OUT]
    fewer = responses.copy()
    fewer[held[:, 0], held[:, 1]] = np.nan
    items, abilities = fit(fewer, dimensions)
    scores, expected = responses[held[:, 0], held[:, 1]], items.chances(abilities)[held[:, 0], held[:, 1]]
    seen = ~np.isnan(fewer)
    means = (np.where(seen, fewer, 0.0).sum(axis=1) + 0.5) / (seen.sum(axis=1) + 1)
    losses = _loss(scores, expected), _loss(scores, means[held[:, 0]])
    told = f"log-loss {losses[0]:.3f} by the response model, {losses[1]:.3f} by genomes' means"
    if not losses[0] < losses[1]:
        return None, told
    items, abilities = fit(responses, dimensions)
    latest = abilities[max(sources, len(abilities) - LATEST) :]
    spread = max(1.0, float(latest.std(axis=0).max()))
    bias = _bias(scores - expected, expected, held[:, 0])
    return Calibrated(items, latest.mean(axis=0), spread, abilities[:sources], bias), told


def _loss(scores: Array, chances: Array) -> float:
    """The mean log-loss of chances of success."""
    chances = np.clip(chances, 1e-6, 1 - 1e-6)
    return float(-(scores * np.log(chances) + (1 - scores) * np.log(1 - chances)).mean())


def _bias(residuals: Array, expected: Array, rows: NDArray[np.intp]) -> float:
    """By how much the mean expectation for a genome is off, beyond what chance explains."""
    count, total = np.bincount(rows), np.bincount(rows, residuals)
    chance = np.bincount(rows, expected * (1 - expected))
    weight = float((count.astype(np.float64) ** 2).sum())
    return math.sqrt(max(0.0, float((total**2 - chance).sum())) / max(weight, 1.0))
