"""Which of two genomes is better, by bets on examples drawn without replacement: a test that may look at any time.

Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting (arXiv 2010.09686): for numbers y_t in
[0, 1], drawn without replacement from N whose mean is m or less, the wealth prod_t 1 + lambda_t (y_t - m_t) with
m_t = (N m - sum of earlier y) / (N - t + 1) (section 5) and stakes lambda_t >= 0 that depend on earlier draws alone
has an expectation of 1 or less. So it ever reaches 1 / alpha with a probability of at most alpha (Ville's inequality).
"""

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-9
STAKE = 0.75  # of what a bet may lose at most, section 4.1 (there c)
Array = NDArray[np.float64]


def surely_above(differences: Array, total: int, reach: float, margin: float, alpha: float) -> NDArray[np.bool_]:
    """For each row, whether the mean of all differences is surely above -`margin`.

    differences: (pairs, seen), the first of `total` in random order, each within +-`reach`. A row whose mean over all
    is -`margin` or below is found to be above it with a probability of at most `alpha`, however often one looks.
    """
    pairs, seen = differences.shape
    outcomes = (differences + reach) / (2 * reach)  # (pairs, seen), in the unit interval
    before = np.cumsum(outcomes, axis=1) - outcomes  # sums of earlier outcomes
    turns = np.arange(seen)
    null = (total * (reach - margin) / (2 * reach) - before) / (total - turns)
    stakes = _stakes(outcomes, before, null)
    with np.errstate(divide="ignore"):
        wealth = np.cumsum(np.log1p(stakes * (outcomes - null)), axis=1)
    # Where even the lowest scores from here on would leave the mean above.
    impossible = np.any(null < -ROUNDING, axis=1)
    ended = np.zeros(pairs, dtype=bool)
    if seen == total:
        ended = differences.mean(axis=1) > -margin + ROUNDING
    surely: NDArray[np.bool_] = impossible | ended | (wealth.max(axis=1, initial=0.0) >= -np.log(alpha))
    return surely


def _stakes(outcomes: Array, before: Array, null: Array) -> Array:
    """(pairs, seen) the approximately growth-optimal stakes (aGRAPA, section B.3) by mean and variance so far.

    Both begin with one observation of mean 1/2 and variance 1/4.
    """
    count = np.arange(outcomes.shape[1]) + 1.0
    mean = (0.5 + before) / count
    squares = np.cumsum(outcomes**2, axis=1) - outcomes**2
    variance = np.maximum((0.5 + squares) / count - mean**2, 1e-6)  # 0.5 = 1/4 + (1/2)^2
    edge = mean - null
    possible = (null > 0) & (null < 1)
    highest = STAKE / np.where(possible, null, 1.0)
    return np.where(possible, np.clip(edge / (variance + edge**2), 0.0, highest), 0.0)
