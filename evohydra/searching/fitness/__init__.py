"""Kinds of fitness: on which search examples the genomes of a generation are scored, and what they are told for it.

A yaml in conf/fitness is `_partial_`: the run adds `sizes` and `seed`. A kind keeps nothing between generations. What
it needs of earlier ones it reads from their records, so that a run that goes on decides as one that never stopped.
Kinds are generators: they yield what they want scored and receive scores. They never block, evaluate or write; the
search loop does that (`evohydra.searching.rounds`).
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from evohydra.scoring.benchmarks import Benchmark
from evohydra.scoring.benchmarks.likelihood import check_likely, check_verifiable
from evohydra.scoring.job import Examples, Verified
from evohydra.searching.fitness.generation import Generation, Requests
from evohydra.searching.ledger import Record
from evohydra.searching.objectives import Objective
from evohydra.searching.references import References

Sizes = Mapping[str, int]  # of each benchmark: the number of examples in its search split


class Fitness(Protocol):
    """Says how generations are scored, and what their members are worth.

    same_examples: every genome of a run is scored on the same ones. comparable: fitness means the same in all
    generations.
    """

    same_examples: bool
    comparable: bool

    def __call__(self, generation: Generation) -> Requests:
        """Yield `Wanted` to have members scored, and `Judged` for each, in their order, as soon as it can be."""
        ...


@runtime_checkable
class KnowsAhead(Protocol):
    """A kind that may know what it wants of genomes before their generation is whole."""

    def ahead(self, number: int, earlier: Sequence[Record], objective: Objective) -> Examples | None:
        """All examples that each member of generation `number`, after these records, is scored on, in one round.

        None where that is not known.
        """
        ...


@runtime_checkable
class WantsReferences(Protocol):
    """A kind that may search by right answers in models' own words, see `evohydra.searching.references`.

    questions: the examples that models are to answer before the search; None where it goes by the tasks' references.
    """

    questions: Examples | None

    def with_references(self, found: References) -> tuple[Fitness, Verified]:
        """The kind that searches by them, and the right answers of its likelihoods by their names.

        Where too few examples are solved it is one by the metric, without likelihoods.
        """
        ...


@runtime_checkable
class WantsLikelihoods(Protocol):
    """A kind that wants the log-likelihoods of right answers, see `evohydra.scoring.benchmarks.likelihood`."""

    wants_likelihoods: bool


@runtime_checkable
class NeedsGenerations(Protocol):
    """A kind that may need whole generations: why, and what to choose instead; None where single genomes will do."""

    needs_generations: str | None


@runtime_checkable
class SameOfEachKind(Protocol):
    """One with scores of several kinds: genomes that have the same kind have it on the same examples."""

    same_of_each_kind: bool


@runtime_checkable
class Staged(Protocol):
    """A kind that scores genomes in one way first and in another way later."""

    def starts_anew(self, earlier: Sequence[Record], objective: Objective) -> bool:
        """Whether the optimizer is to forget these genomes, all of the run, before the next generation."""
        ...

    def group(self, record: Record) -> int:
        """In which way a genome was scored: the best of each group are validated."""
        ...


def check_references(fitness: Fitness, benchmarks: Mapping[str, Benchmark]) -> None:
    """BenchmarkError where a benchmark has no right answers of the kind that `fitness` searches by."""
    if isinstance(fitness, WantsReferences) and fitness.questions is not None:
        check_verifiable(benchmarks)
    elif isinstance(fitness, WantsLikelihoods):
        check_likely(benchmarks)
