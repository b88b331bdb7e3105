"""Every genome on all search examples."""

from collections.abc import Mapping

from evohydra.searching.fitness import Sizes
from evohydra.searching.fitness.generation import Generation, Requests
from evohydra.searching.fitness.order import shuffled
from evohydra.searching.fitness.rejection import judged_on, rejection


class Full:
    """The mean score on the whole search split."""

    comparable = True

    def __init__(self, *, sizes: Sizes, seed: int, reject: Mapping[str, object] | None = None) -> None:
        self._reject = rejection(reject)
        self._order = shuffled(sizes, seed)
        self.same_examples = reject is None

    def __call__(self, generation: Generation) -> Requests:
        """Judge each member as soon as it is scored."""
        return judged_on(generation, generation.everything(), self._order, self._reject)
