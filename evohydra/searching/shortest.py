"""The shortest path that keeps a share of its source's score (pick=shortest)."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evohydra.checks import Share, check_fields
from evohydra.recipe import Node, digest
from evohydra.searching.fronts import Rule, Values
from evohydra.searching.ledger import Record
from evohydra.searching.objectives import HOPS, Objective
from evohydra.searching.scheduler import Scheduler

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shortest:
    """The best in the last objective (the fewest hops) of those that keep `keep` x the fitness of their source.

    Where none does, the one that keeps most. source: its fitness on the split of the values; nan until `against`.
    """

    keep: Share = 0.95
    source: float = math.nan

    def __post_init__(self) -> None:
        check_fields("pick", self, but=["source"])

    def against(self, source: float) -> "Shortest":
        """The same rule against this fitness of the source; ValueError below 0, of which a share is more than all."""
        if source < 0:
            raise ValueError(f"pick=shortest: expected a source whose score is 0 or more, got {source:.3f}")
        return replace(self, source=source)

    def keeps(self, fitness: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n,): which fitness, (n,), is enough; rounding does not decide."""
        enough: NDArray[np.bool_] = fitness >= self.keep * self.source - 1e-9
        return enough

    def __call__(self, values: Values, fitness: NDArray[np.float64]) -> NDArray[np.float64]:
        """The preference for each row of `values`, (n, objectives), with its fitness, (n,): its place from the end."""
        kept = self.keeps(fitness)
        order = np.lexsort((fitness, np.where(kept, values[:, -1], -np.inf), kept))  # by the last key first
        preference = np.empty(len(values))
        preference[order] = np.arange(len(values))
        return preference


def check_shortest(rule: Rule, objectives: Sequence[str], start: Sequence[str], *, alike: bool) -> None:
    """ValueError where `rule` wants what a search does not have; alike: whether all fitness of it means the same."""
    if not isinstance(rule, Shortest):
        return
    if HOPS not in objectives:
        raise ValueError("pick=shortest: expected objective=path_length, got one without the length of paths")
    if "sources" not in start:
        raise ValueError("pick=shortest: expected start=[sources], so that the source has a score in the search")
    if not alike:
        raise ValueError("pick=shortest: expected a fitness that means the same for all genomes: choose fitness=full")


def against_sources(
    rule: Shortest,
    known: Mapping[str, Node],
    records: Sequence[Record],
    scheduler: Scheduler | None,
    objective: Objective,
) -> tuple[Shortest, Shortest]:
    """The rule on the search split and on validation: against the best source of the search.

    known: the sources as recipes of the space, by name. ValueError where none of them has a score.
    """
    names = {digest(node): name for name, node in known.items()}
    scored = {names[r.recipe]: r.fitness for r in records if r.recipe in names and r.fitness is not None}
    if not scored:
        raise ValueError("pick=shortest: no source has a score in the search, of which paths could keep a share")
    best = max(scored, key=lambda name: scored[name])
    on_search = rule.against(scored[best])
    if scheduler is None:
        return on_search, on_search
    evaluation = scheduler.scored({best: known[best]}, "validation")[best]
    if not evaluation.scores:
        raise ValueError(f"pick=shortest: {best} could not be scored on the validation split: {evaluation.error}")
    return on_search, rule.against(objective.fitness(evaluation.scores))


def one_of_each(records: Sequence[Record]) -> list[Record]:
    """Of records with the same objectives the first one; those without a score are left out."""
    found: dict[tuple[float, ...], Record] = {}
    for record in records:
        if record.fitness is not None:
            found.setdefault(tuple(record.objectives.values()), record)
    return list(found.values())


def warn_unless_kept(rule: Rule, fitness: float | None) -> None:
    """Say so where a winner, with this fitness on validation, does not keep enough."""
    if isinstance(rule, Shortest) and fitness is not None and not rule.keeps(np.array([fitness]))[0]:
        logger.warning(
            "pick=shortest: no path of the front keeps %g x the source's score on validation (%.3f); the winner is "
            "the one that keeps most, %.3f",
            rule.keep,
            rule.source,
            fitness,
        )
