"""A generation being scored: which scores its members have so far, and how they get more, each only once."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from evohydra.recipe import Node, digest
from evohydra.scoring.job import Evaluation, Examples, Job, Scores
from evohydra.search.ledger import Ledger, Record
from evohydra.search.objectives import Objective
from evohydra.search.scheduler import Scheduler
from evohydra.spaces.genes import Value


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
class Scoring:
    """What scores a generation.

    sizes: the number of search examples of each benchmark. sources: scores the source models on all of them when it is
    called, and gives each one's scores.
    """

    scheduler: Scheduler
    sizes: Mapping[str, int]
    objective: Objective = field(default_factory=Objective)
    sources: Callable[[], Sequence[Scores]] = tuple


class Generation:
    """The members of a generation. `earlier` are the records of the generations before it."""

    def __init__(self, number: int, members: Sequence[Member], scoring: Scoring, ledger: Ledger) -> None:
        self.number, self.members = number, members
        self.sizes, self.objective, self.sources = scoring.sizes, scoring.objective, scoring.sources
        self.earlier: Sequence[Record] = tuple(ledger.records)
        self._scheduler, self._ledger = scoring.scheduler, ledger
        same: dict[str, list[Member]] = {}
        for member in members:
            same.setdefault(member.digest, []).append(member)
        self._twins = [[other for other in same[member.digest] if other is not member] for member in members]

    def everything(self) -> dict[str, list[int]]:
        """All examples of the search split."""
        return {name: list(range(size)) for name, size in self.sizes.items()}

    def score(self, wanted: Sequence[tuple[int, Examples]]) -> Iterator[Member]:
        """Score members, by their places, on examples; each is given as soon as it has them, in order.

        Nothing is scored that the same recipe was scored on before, in this generation or an earlier one.
        """
        planned: dict[str, dict[str, set[int]]] = {}
        fresh = []
        for place, examples in wanted:
            member = self.members[place]
            for record in self._ledger.same(member.digest):
                member.copy(record, examples)
            for twin in self._twins[place]:
                member.copy(twin, examples)
            claimed = planned.setdefault(member.digest, {})
            missing = {
                name: [p for p in sorted(places) if p not in member.has(name) and p not in claimed.get(name, ())]
                for name, places in examples.items()
            }
            if member.error is not None or not any(missing.values()):
                missing = {}
            for name, places in missing.items():
                claimed.setdefault(name, set()).update(places)
            fresh.append(missing)
        yield from self._carried_out(wanted, fresh)

    def _carried_out(
        self, wanted: Sequence[tuple[int, Examples]], fresh: Sequence[Mapping[str, Sequence[int]]]
    ) -> Iterator[Member]:
        jobs = [self._job(self.members[place], new) for (place, _), new in zip(wanted, fresh, strict=True) if new]
        submitted = iter(self._scheduler.submit(jobs))
        for (place, examples), missing in zip(wanted, fresh, strict=True):
            member = self.members[place]
            if missing:
                member.take(self._scheduler.result(next(submitted)), missing)
            for twin in self._twins[place]:
                member.copy(twin, examples)
            yield member

    def _job(self, member: Member, examples: Mapping[str, Sequence[int]]) -> tuple[str, Job]:
        everything = all(len(examples.get(name, ())) == size for name, size in self.sizes.items())
        return f"genome {member.index}", Job(member.recipe, "search", None if everything else examples)

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
        everything = all(len(places.get(name, ())) == size for name, size in self.sizes.items())
        return replace(
            line,
            fitness=fitness,
            scores=scores,
            objectives=objectives,
            examples=None if everything else places,
            error_bar=judged.error_bar,
        )


def members_of(first: int, genomes: NDArray[np.float64], genes: Sequence[Mapping[str, Value]],
               recipes: Sequence[Node]) -> list[Member]:  # fmt: skip
    """The members of a generation whose first genome has the number `first`."""
    parts = zip(genomes, genes, recipes, strict=True)
    return [Member(first + i, x, values, recipe, digest(recipe)) for i, (x, values, recipe) in enumerate(parts)]
