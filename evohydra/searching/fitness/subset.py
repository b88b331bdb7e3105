"""Every genome of a generation on the same few search examples (common random numbers)."""

from collections.abc import Mapping

from evohydra.checks import Count
from evohydra.searching.fitness import Sizes
from evohydra.searching.fitness.expected import Course, Expected, rejected
from evohydra.searching.fitness.generation import Generation, Requests
from evohydra.searching.fitness.order import drawn, say_where_fewer, shuffled
from evohydra.searching.fitness.rejection import judged_on, rejection

NEEDS_GENERATIONS = "fitness.fresh: expected false with search=steady, where all genomes are compared, got true"


class Subset:
    """The mean score on `examples` random ones of each benchmark: others in each generation if `fresh`, or the same.

    Fresh examples are those of arXiv 2403.13187 (section 4.1: 200 for each generation). Their fitness can be compared
    within a generation only, so the best genomes of every generation are validated. Where there are several objectives,
    they are the means of the same examples: random ones, unbiased, and to be compared as the fitness is.
    """

    def __init__(
        self,
        *,
        sizes: Sizes,
        seed: int,
        examples: Count,
        fresh: bool = True,
        reject: Mapping[str, object] | None = None,
    ) -> None:
        say_where_fewer(sizes, "examples", examples)
        self._sizes, self._seed, self._examples, self._fresh = sizes, seed, examples, fresh
        self._reject = rejection(reject)
        self.needs_generations = NEEDS_GENERATIONS if fresh else None
        self.comparable, self.same_examples = not fresh, not fresh and reject is None

    def expected(self, course: Course) -> Expected:
        """Every genome on a few examples."""
        least = self._reject.after * course.genomes if self._reject else None
        wanted = {name: min(self._examples, size) * course.genomes for name, size in self._sizes.items()}
        return Expected({name: rejected(whole, least) for name, whole in wanted.items()})

    def __call__(self, generation: Generation) -> Requests:
        """Judge each member as soon as it is scored."""
        number = generation.number if self._fresh else 0
        chosen = drawn(self._sizes, self._examples, self._seed, number)
        order = shuffled({name: len(places) for name, places in chosen.items()}, self._seed)
        return judged_on(generation, chosen, [(name, chosen[name][at]) for name, at in order], self._reject)
