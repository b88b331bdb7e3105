"""Genomes as a Gaussian process sees them: features whose squared distances add up gene by gene."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evohydra.searching.optimizers import Points
from evohydra.spaces.genes import Axis


@dataclass(frozen=True)
class Features:
    """What genes become: a number its coordinate, an integer the middle of its level, a choice a one-hot vector.

    A one-hot vector is divided by the square root of 2, so that two different options are at distance 1, as the ends of
    a number's range are. gene: (features,), the gene that each feature belongs to.
    """

    axes: tuple[Axis, ...]
    gene: NDArray[np.intp]

    @classmethod
    def of(cls, axes: Sequence[Axis]) -> "Features":
        """The features of genes on these axes."""
        widths = [axis.levels if axis.kind == "categorical" else 1 for axis in axes]
        return cls(tuple(axes), np.repeat(np.arange(len(axes)), widths))

    def __call__(self, genomes: Points) -> NDArray[np.float64]:
        """(n, genes) in the unit cube -> (n, features)."""
        columns = []
        for at, axis in enumerate(self.axes):
            column = genomes[:, at]
            if axis.kind == "continuous":
                columns.append(column[:, None])
            elif axis.kind == "integer":
                columns.append((level(column, axis.levels)[:, None] + 0.5) / axis.levels)
            else:
                columns.append((level(column, axis.levels)[:, None] == np.arange(axis.levels)) / np.sqrt(2.0))
        found: NDArray[np.float64] = np.concatenate(columns, axis=1, dtype=np.float64)
        return found

    @property
    def free(self) -> NDArray[np.intp]:
        """The genes that are numbers, of which a model has gradients."""
        return np.flatnonzero([axis.kind == "continuous" for axis in self.axes])

    @property
    def levels(self) -> NDArray[np.intp]:
        """(genes,): the number of levels of each gene, 0 of a number."""
        return np.array([axis.levels if axis.kind != "continuous" else 0 for axis in self.axes], dtype=np.intp)


def level(units: NDArray[np.float64], levels: int) -> NDArray[np.intp]:
    """Which of `levels` equal shares of the unit interval each of `units`, (n,), lies in."""
    found: NDArray[np.intp] = np.minimum((units * levels).astype(np.intp), levels - 1)
    return found


def on_levels(genomes: Points, levels: NDArray[np.intp]) -> Points:
    """`genomes`, (n, genes), with integers and choices at the middle of their level; `levels` as in `Features`."""
    found = np.array(genomes, dtype=np.float64)
    some = np.flatnonzero(levels)
    count = levels[some]
    found[:, some] = (np.clip(np.floor(found[:, some] * count), 0, count - 1) + 0.5) / count
    return found
