"""Spaces over recipes: merges of models that are merges themselves, of which no weights are written."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evohydra.recipe import Checkpoint, Node, Stack, checkpoints, with_checkpoints
from evohydra.spaces import Space
from evohydra.spaces.genes import Value


def stand_in(name: str) -> Checkpoint:
    """What stands in a space for the recipe of this name."""
    return Checkpoint(name, f"recipe://{name}")


def with_recipes(node: Node, recipes: Mapping[str, Node]) -> Node:
    """The same recipe with the `recipes` in the places of their stand-ins."""
    named: dict[str, Node] = {each.name: each for each in checkpoints(node)}
    return with_checkpoints(node, named | {name: each for name, each in recipes.items() if name in named})


class NestedSpace:
    """The recipes of `space`, which is over stand-ins, with the `recipes`, by name, in the places of these."""

    def __init__(self, space: Space, recipes: Mapping[str, Node]) -> None:
        self._space, self._recipes = space, recipes
        self.names, self.axes = space.names, space.axes

    def decode(self, x: NDArray[np.float64]) -> Node:
        """The recipe at `x`, (dim,), in the unit cube."""
        return with_recipes(self._space.decode(x), self._recipes)

    def values(self, x: NDArray[np.float64]) -> dict[str, Value]:
        """Each gene's value at `x`, (dim,), by name."""
        return self._space.values(x)

    def encode(self, node: Node) -> NDArray[np.float64]:
        """The point, (dim,), whose recipe is `node`; ValueError where this space holds no such recipe."""
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
        return {name: with_recipes(node, self._recipes) for name, node in self._space.known_merges().items()}

    def default(self) -> Node:
        """The recipe at the usual defaults of its method."""
        return with_recipes(self._space.default(), self._recipes)
