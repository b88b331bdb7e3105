"""From the scores on a few examples to the mean over all: the estimators of tinyBenchmarks and of MERGE3.

p-IRT and gp-IRT: arXiv 2402.14992, section 3.3. mp-IRT: arXiv 2502.10436, section 3.2. A score that is known is taken
as it is, the others as the response model expects them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evohydra.searching.fitness.response_model import Ability, Array, Items, locate


@dataclass(frozen=True)
class Calibrated:
    """What is known of the examples of a benchmark before a genome is scored on them.

    centre, spread: of the abilities to expect. sources: (sources, dimensions) abilities. bias: by how much the model's
    mean expectation for a genome is usually off.
    """

    items: Items
    centre: Array
    spread: float
    sources: Array
    bias: float


@dataclass(frozen=True)
class Estimate:
    """A mean score over all examples, and its standard error."""

    value: float
    error: float
    ability: Ability


# What is known, the places that were scored, their scores, and how many of these, the first ones, were drawn at random.
Estimator = Callable[[Calibrated, Sequence[int], Array, int], Estimate]


def p_irt(known: Calibrated, places: Sequence[int], scores: Array, drawn: int) -> Estimate:
    """The share seen times its mean, and the share unseen times the mean of what the model expects there."""
    at = np.asarray(places, dtype=np.intp)
    ability = locate(known.items, at, scores, known.centre, known.spread)
    total = len(known.items.offsets)
    unseen = np.setdiff1d(np.arange(total), at)
    chances = known.items.chances(ability.mean)[unseen]
    noise = chances * (1 - chances)
    slope = noise @ known.items.slopes[unseen] / total
    unknown = len(unseen) / total
    variance = float(slope @ ability.covariance @ slope) + float(noise.sum()) / total**2 + (unknown * known.bias) ** 2
    return Estimate(float(scores.sum() + chances.sum()) / total, math.sqrt(variance), ability)


def gp_irt(known: Calibrated, places: Sequence[int], scores: Array, drawn: int) -> Estimate:
    """p-IRT and the mean of the randomly drawn scores, by their errors: the share of the mean is b^2 / (s^2 / n + b^2).

    b is the bias of the model, s^2 the variance of scores; n here are the `drawn` ones, for the others were chosen.
    """
    model = p_irt(known, places, scores, drawn)
    random, total = scores[:drawn], len(known.items.offsets)
    spread = (float(((random - random.mean()) ** 2).sum()) + 0.25) / drawn / drawn * (1 - drawn / total)
    share = known.bias**2 / (spread + known.bias**2)
    value = share * float(random.mean()) + (1 - share) * model.value
    error = math.hypot(share * math.sqrt(spread), (1 - share) * model.error)
    return Estimate(value, error, model.ability)


def mp_irt(known: Calibrated, places: Sequence[int], scores: Array, drawn: int) -> Estimate:
    """p-IRT for an ability that is a linear combination of the sources' abilities, by any coefficients.

    So there are as many unknowns as sources, however many dimensions abilities have: with one dimension it is p-IRT.
    """
    in_sources = replace(
        known,
        items=Items(known.items.slopes @ known.sources.T, known.items.offsets),
        centre=np.full(len(known.sources), 1 / len(known.sources)),
        spread=1.0,
    )
    return p_irt(in_sources, places, scores, drawn)
