"""CMA-ES that slows down where fitness is noisy (LRA-CMA-ES, Nomura et al., arXiv 2304.03473), by the package cmaes."""

import functools
from collections.abc import Sequence
from typing import Any

import cmaes

from evohydra.searching.optimizers.cmaes import CMAES, WIDE
from evohydra.spaces.genes import Axis


class LRACMAES(CMAES):
    """CMA-ES whose learning rates follow the signal-to-noise ratio of its own updates."""

    strategy = wide = functools.partial(cmaes.CMA, lr_adapt=True)

    def __init__(self, *, axes: Sequence[Axis], **settings: Any) -> None:
        if len(axes) > WIDE:
            raise ValueError(
                f"optimizer=lra_cmaes: expected at most {WIDE} genes, got {len(axes)}: its time grows with their third "
                "power; use sep_cmaes, or a larger optimizer.population"
            )
        super().__init__(axes=axes, **settings)
