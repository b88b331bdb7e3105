"""What a strategy is told of a generation: fitness, objectives, error bars, or all scores; failures are worst."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evohydra.searching.feasible import FeasibleFirst, broken, feasible, feasible_first, margins
from evohydra.searching.ledger import Record
from evohydra.searching.objectives import finite
from evohydra.searching.optimizers import (
    LearnsFromConstraints,
    LearnsFromEstimates,
    LearnsFromExamples,
    LearnsFromObjectives,
    Optimizer,
    Points,
)
from evohydra.searching.optimizers.singles import Result


def tell(optimizer: Optimizer, genomes: Points, records: Sequence[Record], seen: Sequence[Record]) -> None:
    """Tell `optimizer` of a generation; `seen` are all records so far, those of this generation too."""
    told = records, seen
    if not isinstance(optimizer, LearnsFromConstraints):
        records, seen = feasible_first(records), FeasibleFirst(seen)
    fitness = np.array(finite([r.fitness for r in records], (r.fitness for r in seen)))
    if isinstance(optimizer, LearnsFromExamples):
        optimizer.tell_examples(genomes, fitness, example_scores(*told))
    elif isinstance(optimizer, LearnsFromEstimates):
        error_bars = np.array([r.error_bar or 0.0 for r in records], dtype=np.float64)
        optimizer.tell_estimates(genomes, objective_values(records, seen), error_bars)
    elif isinstance(optimizer, LearnsFromObjectives):
        optimizer.tell_objectives(genomes, objective_values(records, seen))
    else:
        optimizer.tell(genomes, fitness)
    tell_limits(optimizer, *told)


def tell_limits(optimizer: object, records: Sequence[Record], seen: Sequence[Record]) -> None:
    """Tell a strategy that looks for genomes which keep limits what has to be 0 or more of them."""
    if not isinstance(optimizer, LearnsFromConstraints):
        return
    scored = next((record for record in seen if record.fitness is not None), None)
    if scored is not None and scored.limits:  # all that were scored have them, or none has
        optimizer.tell_constraints(np.array([record.genome for record in records]), margins(records, seen))


def result(optimizer: Optimizer, record: Record, seen: Sequence[Record]) -> Result:
    """What a strategy that takes single results is told of a genome; `seen` are all records so far, this one too.

    One of `seen` at least has a fitness.
    """
    told = [record], seen
    if not isinstance(optimizer, LearnsFromConstraints):
        record, seen = feasible(record), FeasibleFirst(seen)
    seen = seen if record.fitness is None else [record]  # what else there is counts for failures only
    (fitness,) = finite([record.fitness], (each.fitness for each in seen))
    several = isinstance(optimizer, LearnsFromEstimates | LearnsFromObjectives)
    examples = isinstance(optimizer, LearnsFromExamples)
    return Result(
        genome=np.array(record.genome, dtype=np.float64),
        fitness=fitness,
        objectives=objective_values([record], seen)[0] if several else np.array([fitness]),
        error_bar=record.error_bar or 0.0,
        scores=example_scores(*told)[0] if examples else np.empty(0),
    )


def objective_values(records: Sequence[Record], seen: Sequence[Record]) -> NDArray[np.float64]:
    """(genomes, objectives), larger is better; a failed genome has the worst value seen of each objective."""
    names = next((tuple(r.objectives) for r in seen if r.objectives), ())

    def of(record: Record) -> list[float | None]:
        return [record.objectives.get(name) for name in names] if names else [record.fitness]

    columns = zip(*(of(record) for record in records), strict=True)
    return np.array(
        [finite(column, (of(record)[at] for record in seen)) for at, column in enumerate(columns)], dtype=np.float64
    ).T


def example_scores(records: Sequence[Record], seen: Sequence[Record]) -> NDArray[np.float64]:
    """(genomes, examples of all benchmarks); a failed genome has the worst score seen of each benchmark.

    One that breaks limits has less, by as much as it breaks them: it has nothing that others could take from it.
    Raises ValueError where genomes were scored on different examples.
    """
    first = next((record for record in seen if record.scores), None)
    sizes = {name: len(values) for name, values in first.scores.items()} if first is not None else {}
    worst: dict[str, float] = {}
    if not all(record.scores and not broken(record) for record in records):
        worst = {name: min(min(record.scores[name]) for record in seen if record.scores) for name in sizes}
    table = []
    for record in records:
        amount, scores = broken(record), record.scores or {name: [0.0] * size for name, size in sizes.items()}
        if {name: len(values) for name, values in scores.items()} != sizes:
            raise ValueError(EVERY_EXAMPLE)
        if amount or not record.scores:
            scores = {name: [worst[name] - amount] * size for name, size in sizes.items()}
        table.append([value for name in sizes for value in scores[name]])
    return np.array(table, dtype=np.float64).reshape(len(records), sum(sizes.values()))


EVERY_EXAMPLE = (
    "this optimizer compares genomes example by example: expected all of them scored on the same examples; choose "
    "fitness=full"
)
