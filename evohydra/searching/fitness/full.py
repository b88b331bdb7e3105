"""Every genome on all search examples."""

from collections.abc import Mapping, Sequence

from evohydra.scoring.job import Examples
from evohydra.searching.fitness import Sizes
from evohydra.searching.fitness.expected import Course, Expected, rejected
from evohydra.searching.fitness.generation import Generation, Requests
from evohydra.searching.fitness.order import shuffled
from evohydra.searching.fitness.rejection import judged_on, rejection
from evohydra.searching.ledger import Record
from evohydra.searching.objectives import Objective


class Full:
    """The mean score on the whole search split."""

    comparable = True

    def __init__(self, *, sizes: Sizes, seed: int, reject: Mapping[str, object] | None = None) -> None:
        self._reject, self._sizes = rejection(reject), sizes
        self._order = shuffled(sizes, seed)
        self.same_examples = reject is None

    def ahead(self, number: int, earlier: Sequence[Record], objective: Objective) -> Examples | None:
        """All of them, unless genomes are rejected early."""
        return None if self._reject else {name: range(size) for name, size in self._sizes.items()}

    def expected(self, course: Course) -> Expected:
        """Every genome on every example."""
        least = self._reject.after * course.genomes if self._reject else None
        return Expected({name: rejected(size * course.genomes, least) for name, size in self._sizes.items()})

    def __call__(self, generation: Generation) -> Requests:
        """Judge each member as soon as it is scored."""
        return judged_on(generation, generation.everything(), self._order, self._reject)
