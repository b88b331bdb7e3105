"""Kinds of fitness: on which search examples the genomes of a generation are scored, and what they are told for it.

A yaml in conf/fitness is `_partial_`: the run adds `sizes` and `seed`. A kind keeps nothing between generations. What
it needs of earlier ones it reads from their records, so that a run that goes on decides as one that never stopped.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

from evohydra.search.fitness.generation import Generation, Judged

Sizes = Mapping[str, int]  # of each benchmark: the number of examples in its search split


class Fitness(Protocol):
    """Scores generations.

    same_examples: every genome of a run is scored on the same ones. comparable: fitness means the same in all
    generations. in_rounds: members are scored in several steps, each of which is kept on file.
    """

    same_examples: bool
    comparable: bool
    in_rounds: bool

    def __call__(self, generation: Generation) -> Iterator[Judged]:
        """Score the members by `generation.score` and judge them, in their order, each as soon as it can be."""
        ...
