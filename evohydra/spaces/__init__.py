"""Search spaces: points of the unit cube <-> recipes."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evohydra.recipe import Node
from evohydra.spaces.genes import Axis, Value


class Space(Protocol):
    """What is searched."""

    names: tuple[str, ...]
    axes: tuple[Axis, ...]

    def decode(self, x: NDArray[np.float64]) -> Node:
        """The recipe at `x`, (dim,), in the unit cube."""
        ...

    def values(self, x: NDArray[np.float64]) -> dict[str, Value]:
        """Each gene's value at `x`, (dim,), by name."""
        ...

    def encode(self, node: Node) -> NDArray[np.float64]:
        """The point, (dim,), whose recipe is `node`; ValueError where this space holds no such recipe."""
        ...

    def known_merges(self) -> Mapping[str, Node]:
        """Known recipes of this space by name: each source alone, and the uniform merge."""
        ...

    def default(self) -> Node:
        """The recipe at the usual defaults of its method."""
        ...
