"""The search loop: ask, evaluate what the ledger does not hold, tell; then choose the winner on validation."""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evohydra.executors import Executor
from evohydra.genome import Value
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
    evaluate_in: Callable[[int, Sequence[Node]], Evaluate],
    ledger: Ledger,
    budget: int,
    observers: Iterable[Observer] = (),
) -> list[Record]:
    """Evaluate `budget` genomes and return their records in order.

    `evaluate_in` gives for the number of a generation, and those of its recipes that the ledger does not hold, what
    evaluates them.

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
        recipes = [space.decode(x) for x in batch]
        evaluate = evaluate_in(generation, recipes[max(0, ledger.replayed - first) :])
        remember = functools.partial(_remember, ledger, generation, evaluate)
        genes = [space.values(x) for x in batch]
        for record in executor.map(remember, zip(itertools.count(first), batch, genes, recipes, strict=False)):
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
    ledger: Ledger,
    generation: int,
    evaluate: Evaluate,
    member: tuple[int, NDArray[np.float64], Mapping[str, Value], Node],
) -> Record:
    index, genome, genes, recipe = member
    return ledger.remember(index, generation, genome, genes, recipe, evaluate)


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
