"""The decoder of data-flow genomes as the author of arXiv 2403.13187 described it, on its own numbers around zero."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from evohydra.recipe import Hop


def published_path(params: NDArray[np.float64], depths: tuple[int, int], repeats: int) -> tuple[Hop, ...]:
    """The hops of `params`, (T + M * M,), for sources A and B of `depths` layers; M = sum(depths), T = M * repeats.

    `layer_idx = argwhere(params[:T] > 0) % M` lies between A's first and A's last layer; the others are p, and 1 + p
    as a matrix gives the scale of a hop by the layer before it (row) and its own (column); the first hop's is 1.
    `DataFlowSpace` with matrix scales gives the same path for params = half the width of its range * (2 x - 1).
    """
    total = sum(depths)
    slots = total * repeats
    if params.shape != (slots + total**2,):
        raise ValueError(f"expected params of shape ({slots + total**2},), got {params.shape}")
    layer_idx = np.argwhere(params[:slots] > 0).ravel() % total
    path = [0, *(int(layer) for layer in layer_idx), depths[0] - 1]
    scales = 1 + params[slots:].reshape(total, total)
    given = [1.0, *(float(scales[previous, current]) for previous, current in pairwise(path))]
    return tuple(
        Hop(0, layer, scale) if layer < depths[0] else Hop(1, layer - depths[0], scale)
        for layer, scale in zip(path, given, strict=True)
    )
