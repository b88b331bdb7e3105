"""Spaces over recipes: merges of models that are merges themselves, of which no weights are written."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evohydra.merging.collapsing import collapsed
from evohydra.recipe import Checkpoint, Merge, Node, Stack, checkpoints, with_checkpoints
from evohydra.spaces import Space
from evohydra.spaces.genes import Value


def stand_in(name: str) -> Checkpoint:
    """What stands in a space for the recipe of this name."""
    return Checkpoint(name, f"recipe://{name}")


def with_recipes(node: Node, recipes: Mapping[str, Node], collapse: bool = True) -> Node:
    """The same recipe with the `recipes` in the places of their stand-ins.

    Where `collapse`, linear merges of linear ones are one merge (see `collapsed`), also on a path. A recipe that a path
    goes through is what it was.
    """
    if isinstance(node, Stack):
        return replace(node, sources=tuple(with_recipes(source, recipes, collapse) for source in node.sources))
    named: dict[str, Node] = {each.name: each for each in checkpoints(node)}
    made = with_checkpoints(node, named | {name: each for name, each in recipes.items() if name in named})
    return collapsed(made) if collapse and isinstance(node, Merge) and isinstance(made, Merge) else made


def tree(space: Space, x: NDArray[np.float64]) -> Node:
    """The recipe at `x`, (dim,), as a merge, or path, of the sources of `space`, also where these are recipes."""
    return space.tree(x) if isinstance(space, NestedSpace) else space.decode(x)


class NestedSpace:
    """The recipes of `space`, which is over stand-ins, with the `recipes`, by name, in the places of these.

    Where `collapse`, linear merges of linear ones are one merge.
    """

    def __init__(self, space: Space, recipes: Mapping[str, Node], collapse: bool = True) -> None:
        self._space, self._recipes, self._collapse = space, recipes, collapse
        self.names, self.axes = space.names, space.axes

    def _placed(self, node: Node) -> Node:
        return with_recipes(node, self._recipes, self._collapse)

    def decode(self, x: NDArray[np.float64]) -> Node:
        """The recipe at `x`, (dim,), in the unit cube."""
        return self._placed(self._space.decode(x))

    def tree(self, x: NDArray[np.float64]) -> Node:
        """The recipe at `x`, (dim,), before linear merges of linear ones become one merge."""
        return with_recipes(self._space.decode(x), self._recipes, collapse=False)

    def values(self, x: NDArray[np.float64]) -> dict[str, Value]:
        """Each gene's value at `x`, (dim,), by name."""
        return self._space.values(x)

    def encode(self, node: Node) -> NDArray[np.float64]:
        """The point, (dim,), whose recipe is `node`; ValueError where this space holds no such recipe.

        Of merges that were collapsed only the default and the known ones are found again, also on other paths: more
        than one genome may have the coefficients of another one.
        """
        usual = self._space.default()
        for known in (usual, *self._space.known_merges().values()):
            if self._placed(known) == node:
                return self._space.encode(known)
        if isinstance(node, Stack) and isinstance(usual, Stack) and len(node.sources) == len(usual.sources):
            pairs = zip(node.sources, usual.sources, strict=True)
            sources = tuple(was if self._placed(was) == now else self._without(now) for now, was in pairs)
            return self._space.encode(replace(node, sources=sources))
        return self._space.encode(self._without(node))

    def _without(self, node: Node) -> Node:
        """A recipe with stand-ins in the places of those that it is made from."""
        for name, recipe in self._recipes.items():
            if node == recipe:
                return stand_in(name)
        if isinstance(node, Checkpoint):
            return node
        if isinstance(node, Stack):
            return replace(node, sources=tuple(map(self._without, node.sources)))
        base = self._without(node.base) if node.base else None
        return replace(node, base=base, models=tuple(map(self._without, node.models)))

    def known_merges(self) -> dict[str, Node]:
        """Known recipes of this space by name: each source alone, and the uniform merge."""
        return {name: self._placed(node) for name, node in self._space.known_merges().items()}

    def default(self) -> Node:
        """The recipe at the usual defaults of its method."""
        return self._placed(self._space.default())
