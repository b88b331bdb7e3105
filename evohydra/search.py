"""The search loop: ask, evaluate what the ledger does not hold, tell; then choose the winner on validation."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evohydra.executors import Executor
from evohydra.ledger import Evaluate, Ledger, Record
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
    evaluate_in: Callable[[int], Evaluate],
    ledger: Ledger,
    budget: int,
    observers: Iterable[Observer] = (),
    expect: Callable[[Sequence[Node]], None] | None = None,
) -> list[Record]:
    """Evaluate `budget` genomes and return their records in order; `evaluate_in` says how in each generation.

    `expect` is told beforehand which recipes of a generation will be evaluated.

    Raises ValueError where the budget is smaller than a generation, SearchError where the whole first generation fails.
    """
    if budget < optimizer.population:
        raise ValueError(
            f"budget={budget} is smaller than one generation of {optimizer.population} genomes; raise the budget or "
            "lower optimizer.population"
        )
    observers = tuple(observers)
    generation = 0
    while len(ledger.records) < budget:
        first = len(ledger.records)
        genomes = optimizer.ask()
        batch = genomes[: budget - first]
        if expect is not None:
            expect([space.decode(x) for x in batch[max(0, ledger.replayed - first) :]])
        remember = functools.partial(_remember, space, ledger, evaluate_in(generation), generation, first, batch)
        for record in executor.map(remember, range(len(batch))):
            for observe in observers:
                observe(record)
        records = ledger.records[first:]
        if generation == 0 and all(record.fitness is None for record in records):
            raise SearchError(f"every genome of the first generation failed; the first one: {records[0].error}")
        if len(batch) == len(genomes):
            fitness = finite([record.fitness for record in records], (r.fitness for r in ledger.records))
            optimizer.tell(genomes, np.array(fitness))
        generation += 1
    return ledger.records


def _remember(
    space: Space,
    ledger: Ledger,
    evaluate: Evaluate,
    generation: int,
    first: int,
    batch: NDArray[np.float64],
    place: int,
) -> Record:
    """The record of the genome at `place` of a generation whose first one has the index `first`."""
    x = batch[place]
    return ledger.remember(first + place, generation, x, space.values(x), space.decode(x), evaluate)


def choose(
    space: Space, ledger: Ledger, evaluate: Evaluate | None, top: int, *, each_generation: bool = False
) -> list[Candidate]:
    """The `top` different recipes of the search (or of `each_generation`) re-scored on validation, the winner first.

    Without `evaluate` there is no validation, and the best of the search is the winner.
    """
    ranked = sorted((r for r in ledger.records if r.fitness is not None), key=lambda r: (-(r.fitness or 0.0), r.index))
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
    candidates.sort(
        key=lambda c: (-(c.validation if c.validation is not None else -np.inf), -(c.record.fitness or 0.0))
    )
    return candidates
