"""A generation being scored: which scores its members have so far, and what a kind of fitness may ask for."""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evohydra.recipe import Node, digest
from evohydra.scoring.job import Evaluation, Examples
from evohydra.searching.ledger import Record
from evohydra.searching.objectives import Objective
from evohydra.spaces.genes import Value


@dataclass(frozen=True)
class Wanted:
    """Members, by their places, are to be scored on examples, in this order.

    The kind goes on when all have their scores, and receives the members; without `wait` it goes on at once.
    """

    items: Sequence[tuple[int, Examples]]
    wait: bool = True


@dataclass(frozen=True)
class Scored:
    """Wait until the member at `place` has the scores that were wanted last; the kind receives the member."""

    place: int


@dataclass(frozen=True)
class OfSources:
    """The kind receives the scores of each source model on all search examples: a sequence of `Scores`."""


@dataclass(frozen=True)
class Judged:
    """The fitness of the member at `place` of its generation; None: the mean of its scores.

    error_bar: the standard error of `fitness` as an estimate of the fitness on all search examples. means: the mean
    score on each benchmark, which objectives are made of, estimated as `fitness` is; None: those of its scores.
    """

    place: int
    fitness: float | None = None
    error_bar: float | None = None
    note: str | None = None
    means: Mapping[str, float] | None = None


Requests = Generator[Wanted | Scored | OfSources | Judged, Any, None]  # what a kind of fitness yields and receives


@dataclass
class Member:
    """A genome of a generation, and what is known of it.

    scores: for each benchmark, by the example's place in the search split. scored: examples that were scored for it
    (and not copied from the same recipe). source: the genome whose scores were copied.
    """

    index: int
    genome: NDArray[np.float64]
    genes: Mapping[str, Value]
    recipe: Node
    digest: str
    scores: dict[str, dict[int, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    tokens: int = 0
    scored: int = 0
    source: int | None = None
    broken: str | None = None
    given_up: bool = False

    def has(self, name: str) -> Mapping[int, float]:
        """Its scores on benchmark `name`, by place."""
        return self.scores.get(name, {})

    def take(self, evaluation: Evaluation, examples: Examples) -> None:
        """Add what an evaluation on `examples` gave."""
        self.tokens += evaluation.tokens
        self.scored += sum(len(places) for places in examples.values())
        for part, seconds in evaluation.seconds.items():
            self.seconds[part] = round(self.seconds.get(part, 0.0) + seconds, 4)
        self.error, self.broken, self.given_up = evaluation.error, evaluation.broken, evaluation.given_up
        for name, values in evaluation.scores.items():
            self.scores.setdefault(name, {}).update(zip(examples[name], values, strict=True))

    def copy(self, other: "Member | Record", examples: Examples) -> None:
        """Take over those of `other`'s scores on `examples` that are missing, or its failure; the recipe is the same.

        A failure happens again, for recipes and examples decide what a model computes; one of the machine does not.
        """
        known = other.scores if isinstance(other, Member) else other.by_place()
        for name, places in examples.items():
            here = self.scores.setdefault(name, {})
            new = [p for p in places if p not in here and p in known.get(name, {})]
            here.update((place, known[name][place]) for place in new)
            self.source = other.index if new and self.source is None else self.source
        if other.error is not None and self.error is None and not other.given_up:
            self.error, self.source = other.error, other.index


@dataclass(frozen=True)
class Generation:
    """The members of a generation; `earlier` are the records of the generations before it.

    sizes: the number of search examples of each benchmark.

    In an asynchronous search each genome is a generation of its own: `number` counts populations of genomes that were
    asked, `earlier` are the records that were told before it was asked. single: of such a search. peers: the latest of
    `earlier`, as many as a population, that a genome is compared with instead of its generation. settled: how many of
    `earlier` were there when the first genome with this `number` was asked.
    """

    number: int
    members: Sequence[Member]
    sizes: Mapping[str, int]
    objective: Objective = field(default_factory=Objective)
    earlier: Sequence[Record] = ()
    single: bool = False
    peers: Sequence[Record] = ()
    settled: int = 0

    def label(self, member: Member) -> str:
        """What the scores of a member are called on file."""
        return f"genome asked {member.index}" if self.single else f"genome {member.index}"

    def everything(self) -> dict[str, list[int]]:
        """All examples of the search split."""
        return {name: list(range(size)) for name, size in self.sizes.items()}

    def record(self, judged: Judged) -> Record:
        """The line of a member in the ledger; one that failed has no fitness and no scores."""
        member, objective, error = self.members[judged.place], self.objective, self.members[judged.place].error
        copied = member.scored == 0 and member.source is not None
        line = Record(
            index=member.index,
            generation=self.number,
            genome=[float(u) for u in member.genome],
            genes=dict(member.genes),
            recipe=member.digest,
            fitness=None,
            scores={},
            seconds=member.seconds or {"merge": 0.0, "evaluate": 0.0, "forward": 0.0},
            error=error,
            tokens=member.tokens,
            scored=member.scored,
            given_up=member.given_up,
            note=f"the same recipe as genome {member.source}" if copied else judged.note,
        )
        if error is not None:
            return line
        places = {name: sorted(values) for name, values in member.scores.items() if values}
        scores = {name: [member.scores[name][place] for place in at] for name, at in places.items()}
        fitness = objective.fitness(scores) if judged.fitness is None else judged.fitness
        if not math.isfinite(fitness):
            return replace(line, error=f"fitness is {fitness}")
        if judged.means is None:
            objectives = objective.several(scores, member.recipe)
        else:
            objectives = objective.parts(judged.means, fitness, member.recipe)
        everything = {name: len(at) for name, at in places.items()} == dict(self.sizes)
        return replace(
            line,
            fitness=fitness,
            scores=scores,
            objectives=objectives,
            examples=None if everything else places,
            error_bar=judged.error_bar,
        )


def members_of(
    first: int, genomes: NDArray[np.float64], genes: Sequence[Mapping[str, Value]], recipes: Sequence[Node]
) -> list[Member]:
    """The members of a generation whose first genome has the number `first`."""
    parts = zip(genomes, genes, recipes, strict=True)
    return [Member(first + i, x, values, recipe, digest(recipe)) for i, (x, values, recipe) in enumerate(parts)]
