"""Trust regions: Eriksson et al., Scalable Global Optimization via Local Bayesian Optimization, arXiv 1910.01739."""

import math

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
FIRST, LONGEST, SHORTEST = 0.8, 1.6, 0.5**7  # edges of the region, in edges of the unit cube, as in the paper
SUCCESSES = 3  # generations in a row that find something better, after which the region grows
FAILURES = 4  # and at least so many that do not, after which it shrinks
BETTER = 1e-3  # of the best value, by which a better one has to be better


def length(values: Values, first: int, batch: int, genes: int) -> float:
    """How long the edges of the region are after a search with these values, (n,), larger is better.

    The first generation has `first` of them and the others `batch`. It begins anew when it is shorter than SHORTEST.
    """
    edge, successes, failures = FIRST, 0, 0
    patience = max(FAILURES, math.ceil(genes / batch))
    best = values[:first].max()
    for at in range(first, len(values), batch):
        top = values[at : at + batch].max()
        better = top > best + BETTER * abs(best)
        successes, failures = (successes + 1, 0) if better else (0, failures + 1)
        best = max(best, top)
        if successes == SUCCESSES:
            edge, successes = min(2 * edge, LONGEST), 0
        elif failures == patience:
            edge, failures = edge / 2, 0
            edge = edge if edge >= SHORTEST else FIRST
    return edge


def box(centre: Values, edge: float, scales: Values, low: Values, high: Values) -> tuple[Values, Values]:
    """Low and high, (genes,) each, within those given: edges are `edge` times the length scales over their mean."""
    half = 0.5 * edge * scales / np.exp(np.log(scales).mean())
    return np.clip(centre - half, low, high), np.clip(centre + half, low, high)
