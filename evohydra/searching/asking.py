"""Asks for a generation; where that takes long, workers begin with its first genomes while the others are asked for."""

import numpy as np

from evohydra.recipe import digest
from evohydra.searching.fitness import Fitness, KnowsAhead
from evohydra.searching.ledger import Ledger
from evohydra.searching.optimizers import AsksInTurn, Optimizer, Points
from evohydra.searching.rounds import Scoring
from evohydra.spaces import Space


def asked(
    optimizer: Optimizer, number: int, space: Space, fitness: Fitness, scoring: Scoring, ledger: Ledger, budget: int
) -> Points:
    """The genomes of generation `number`, (n, dimension): those that `optimizer.ask()` gives.

    Of several workers each is given one of the first genomes as soon as that is known, if the optimizer gives them in
    turn and the kind of fitness knows on which examples they are scored. No score depends on that. Genomes on file, and
    recipes that were scored before, are left to the generation as a whole, which submits the same jobs.
    """
    scheduler, first = scoring.scheduler, len(ledger.records)
    workers = scheduler.executor.workers
    if workers < 2 or not isinstance(optimizer, AsksInTurn) or ledger.goes_on:
        return optimizer.ask()
    examples = fitness.ahead(number, ledger.so_far, scoring.objective) if isinstance(fitness, KnowsAhead) else None
    if examples is None:
        return optimizer.ask()
    missing = {name: sorted(places) for name, places in examples.items()}
    found, begun = [], set[str]()
    for genome in optimizer.ask_in_turn():
        found.append(genome)
        if len(found) > min(workers, budget - first):
            continue
        recipe = space.decode(genome)
        content = digest(recipe)
        if content not in begun and not ledger.same(content):
            begun.add(content)
            scheduler.ahead(f"genome {first + len(found) - 1}", scoring.job_on(recipe, missing))
    return np.array(found)
