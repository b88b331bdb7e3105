"""What a search is made of, whether it goes by generations or asynchronously."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evohydra.searching.fitness import Fitness
from evohydra.searching.ledger import Ledger, Record
from evohydra.searching.optimizers import Optimizer
from evohydra.searching.rounds import Scoring
from evohydra.spaces import Space

Observer = Callable[[Record], None]


@dataclass(frozen=True)
class SearchParts:
    """What `search` and `search_steadily` search over, by what, and how long.

    budget: how many genomes are evaluated. observers: are called with each record, in order. renewed: makes the
    optimizer anew where a kind of fitness wants that; None: the search goes on with `optimizer`.
    """

    space: Space
    optimizer: Optimizer
    fitness: Fitness
    scoring: Scoring
    ledger: Ledger
    budget: int
    observers: Sequence[Observer] = ()
    renewed: Callable[[], Optimizer] | None = None
