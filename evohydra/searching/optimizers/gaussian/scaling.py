"""Values as a Gaussian process with mean 0 and variance 1 expects them."""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
DEPTH = 3.0  # how far below the median values still differ, in distances from the median to the best one


def raised(values: Values) -> Values:
    """`values`, (n,), those far below the median raised to where DEPTH says.

    A model that is broken is as bad as another one, and the few worst must not set the scale.
    """
    median, best = float(np.median(values)), float(values.max())
    return np.maximum(values, median - DEPTH * (best - median)) if best > median else values


def standardized(values: Values) -> tuple[Values, float]:
    """`values`, (n,), `raised`, with mean 0 and deviation 1; and the factor that they were divided by."""
    kept = raised(values)
    deviation = float(kept.std())
    if not deviation > 1e-12 * max(1.0, float(np.abs(kept).max())):
        return np.zeros(len(values)), 1.0
    return (kept - kept.mean()) / deviation, deviation
