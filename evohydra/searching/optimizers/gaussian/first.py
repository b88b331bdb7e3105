"""The first generation of a search that learns from points anywhere: what is known, and Sobol points."""

from collections.abc import Sequence

import numpy as np
import scipy

from evohydra.searching.optimizers import Points
from evohydra.searching.optimizers.gaussian.features import Features, on_levels
from evohydra.spaces.genes import Axis

SIGMA = 1 / 6  # edges of the cube: how far numbers that the space favours somewhere are spread around it


def sobol(axes: Sequence[Axis], count: int, seed: int) -> Points:
    """(count, genes): scrambled Sobol points; choices and numbers as often where the space favours them as it says.

    Of a choice of two levels the second one has the probability of a normal number below `Axis.favoured`.
    """
    if not count:
        return np.empty((0, len(axes)))
    drawn = scipy.stats.qmc.Sobol(len(axes), rng=np.random.default_rng([seed, 1])).random_base2(
        max(0, (count - 1).bit_length())
    )
    points = drawn[:count].clip(1e-9, 1 - 1e-9)
    for at, axis in enumerate(axes):
        if axis.favoured and axis.kind == "continuous":
            points[:, at] = np.clip(0.5 + SIGMA * (axis.favoured + scipy.stats.norm.ppf(points[:, at])), 0.0, 1.0)
        elif axis.favoured and axis.levels == 2:
            points[:, at] = np.where(points[:, at] < scipy.stats.norm.cdf(axis.favoured), 0.75, 0.25)
    return on_levels(points, Features.of(axes).levels)
