"""What a Gaussian process has learnt of a search, in units of its fitness."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evohydra.searching.optimizers import Points
from evohydra.searching.optimizers.gaussian.features import Features
from evohydra.searching.optimizers.gaussian.model import Process
from evohydra.searching.optimizers.gaussian.ranges import Ranges

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Learnt:
    """A model of the fitness, which is `centre` + `scale` times the standardized values of `process`."""

    process: Process
    features: Features
    ranges: Ranges
    centre: float
    scale: float

    @property
    def length_scales(self) -> Values:
        """(genes,): by how much a gene has to change, in widths of the range that it began with, to matter."""
        return self.process.hyper.scales

    def predict(self, genomes: Points) -> tuple[Values, Values]:
        """The fitness of `genomes`, (n, genes) in the unit cube, and its standard deviation: (n,) each."""
        mean, deviation = self.process.predict(self.features(self.ranges.outside(genomes)))
        return self.centre + self.scale * mean, self.scale * deviation

    @property
    def noise(self) -> float:
        """The standard deviation of the noise that it takes scores to have."""
        return self.scale * math.sqrt(self.process.hyper.noise)
