"""Both spaces of arXiv 2403.13187 in one genome: a path through layers, where one source is itself a merge."""

import numpy as np
from numpy.typing import NDArray

from evohydra.recipe import Checkpoint, Merge, Node, Stack
from evohydra.spaces import Space
from evohydra.spaces.dataflow import MERGED, DataFlowSpace, with_source
from evohydra.spaces.genes import Axis, Value

PARAMETER, DATAFLOW = "parameter/", "dataflow/"


class HybridSpace:
    """The genes of `parameter`, then those of `dataflow`, under these names.

    Where among the sources of a path the merge stands is `dataflow`'s option `merged`.
    """

    def __init__(self, parameter: Space, dataflow: DataFlowSpace) -> None:
        self._parameter, self._dataflow = parameter, dataflow.with_merge()
        self._place = next(
            place
            for place, source in enumerate(self._dataflow.alone().sources)
            if isinstance(source, Checkpoint) and source.name == MERGED
        )
        self._stand_in = self._dataflow.alone().sources[self._place]
        self._split = len(parameter.names)
        self.names = (*(PARAMETER + n for n in parameter.names), *(DATAFLOW + n for n in self._dataflow.names))
        self.axes: tuple[Axis, ...] = (*parameter.axes, *self._dataflow.axes)

    def decode(self, x: NDArray[np.float64]) -> Stack:
        """The recipe at `x`, (dim,), in the unit cube."""
        if x.shape != (len(self.names),):
            raise ValueError(f"expected a genome of shape ({len(self.names)},), got {x.shape}")
        path = self._dataflow.decode(x[self._split :])
        return with_source(path, self._place, self._parameter.decode(x[: self._split]))

    def values(self, x: NDArray[np.float64]) -> dict[str, Value]:
        """Each gene's value at `x`, (dim,), by name; of a merge that the path does not visit too."""
        merge, path = self._parameter.values(x[: self._split]), self._dataflow.values(x[self._split :])
        return {PARAMETER + k: v for k, v in merge.items()} | {DATAFLOW + k: v for k, v in path.items()}

    def encode(self, node: Node) -> NDArray[np.float64]:
        """The point, (dim,), whose recipe is `node`; ValueError where this space holds no such recipe."""
        if not isinstance(node, Stack) or len(node.sources) <= self._place:
            raise ValueError("this space holds only paths through its own sources")
        merge = node.sources[self._place]
        if not isinstance(merge, Merge):
            raise ValueError(f"source {self._place} of a path of this space is a merge")
        path = with_source(node, self._place, self._stand_in)
        return np.concatenate([self._parameter.encode(merge), self._dataflow.encode(path)])

    def known_merges(self) -> dict[str, Node]:
        """Where the merge is A: its own known_merges, layer by layer. Else A alone."""
        alone = self._dataflow.known_merges()
        if self._place > 0 or not alone:
            merge = self._parameter.default()
            return {name: with_source(path, self._place, merge) for name, path in alone.items()}
        return {
            name: with_source(self._dataflow.alone(), 0, merge)
            for name, merge in self._parameter.known_merges().items()
        }

    def default(self) -> Stack:
        """The merge at its defaults, on the default path."""
        return with_source(self._dataflow.default(), self._place, self._parameter.default())
