"""The search loop: ask, evaluate what the ledger does not hold, tell; then choose the winner on validation."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evohydra.executors import Executor
from evohydra.fitness import Fitness, Sizes
from evohydra.fitness.generation import Evaluates, Generation, Judged, members_of
from evohydra.ledger import Evaluate, Ledger, Record, Scores
from evohydra.objectives import finite, mean
from evohydra.optimizers import Optimizer
from evohydra.recipe import Node
from evohydra.spaces import Space

Observer = Callable[[Record], None]


class SearchError(RuntimeError):
    """A search that cannot go on."""


@dataclass(frozen=True)
class Candidate:
    """One of the best genomes of a search, with its score on the validation split (None where that failed)."""

    record: Record
    recipe: Node
    validation: float | None


def search(
    space: Space,
    optimizer: Optimizer,
    executor: Executor,
    evaluate: Evaluates,
    fitness: Fitness,
    sizes: Sizes,
    sources: Callable[[], Sequence[Scores]],
    ledger: Ledger,
    budget: int,
    observers: Iterable[Observer] = (),
) -> list[Record]:
    """Evaluate `budget` genomes and return their records in order.

    `sizes` are the numbers of search examples of each benchmark, of which `fitness` chooses; `sources` scores the
    source models on all of them, where it asks for that.

    Raises ValueError where the budget is smaller than a generation, SearchError where the whole first generation fails.
    """
    if budget < optimizer.population:
        raise ValueError(
            f"budget={budget} is smaller than one generation of {optimizer.population} genomes; raise the budget or "
            "lower optimizer.population"
        )
    observers = tuple(observers)
    number = 0
    while len(ledger.records) < budget:
        first = len(ledger.records)
        genomes = optimizer.ask()
        batch = genomes[: budget - first]
        on_file = [ledger.on_file(first + place, x) for place, x in enumerate(batch)]
        if None in on_file:
            members = members_of(first, batch, [space.values(x) for x in batch], [space.decode(x) for x in batch])
            generation = Generation(
                number, members, sizes, ledger, executor, evaluate, sources, in_rounds=fitness.in_rounds
            )
            found = (on_file[judged.place] or _record(generation, judged) for judged in fitness(generation))
        else:
            found = (record for record in on_file if record is not None)
        for record in found:
            ledger.add(record)
            for observe in observers:
                observe(record)
        records = ledger.records[first:]
        if number == 0 and all(record.fitness is None for record in records):
            raise SearchError(f"every genome of the first generation failed; the first one: {records[0].error}")
        if len(batch) == len(genomes):
            told = finite([record.fitness for record in records], (r.fitness for r in ledger.records))
            optimizer.tell(genomes, np.array(told))
        number += 1
    return ledger.records


def _record(generation: Generation, judged: Judged) -> Record:
    record = generation.record(judged)
    value = record.fitness
    if value is not None and not math.isfinite(value):
        return replace(record, fitness=None, scores={}, examples=None, error_bar=None, error=f"fitness is {value}")
    return record


def choose(
    space: Space, ledger: Ledger, evaluate: Evaluate | None, top: int, *, each_generation: bool = False
) -> list[Candidate]:
    """The `top` different recipes of the search (or of `each_generation`) re-scored on validation, the winner first.

    An estimated fitness counts less its error bar: many rough estimates have some that are far too high. Without
    `evaluate` there is no validation, and the best of the search is the winner.
    """
    ranked = sorted((r for r in ledger.records if r.fitness is not None), key=lambda r: (-_surely(r), r.index))
    best: dict[str, Record] = {}
    places: Counter[int] = Counter()
    for record in ranked:
        among = record.generation if each_generation else 0
        if record.recipe not in best and places[among] < top:
            best[record.recipe] = record
            places[among] += 1
    candidates = []
    for record in best.values():
        recipe = space.decode(np.array(record.genome))
        if evaluate is None:
            return [Candidate(record, recipe, None)]
        evaluation = ledger.final(f"genome {record.index}", recipe, "validation", evaluate)
        candidates.append(Candidate(record, recipe, mean(evaluation.scores) if evaluation.scores else None))
    candidates.sort(key=lambda c: (-(c.validation if c.validation is not None else -np.inf), -_surely(c.record)))
    return candidates


def _surely(record: Record) -> float:
    return (record.fitness or 0.0) - (record.error_bar or 0.0)
