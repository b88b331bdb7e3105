"""A search as it was configured: over what, by which strategy, how it is judged, and how long."""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace

import numpy as np

from evohydra.searching.ablations import check_ablations
from evohydra.searching.driver import groups_of, search
from evohydra.searching.events import Events
from evohydra.searching.feedback import EVERY_EXAMPLE
from evohydra.searching.fitness import Fitness, NeedsGenerations
from evohydra.searching.fronts import Rule
from evohydra.searching.ledger import Ledger
from evohydra.searching.objectives import Objective
from evohydra.searching.optimizers import LearnsFromExamples, Optimizer, Points
from evohydra.searching.optimizers.singles import one_by_one
from evohydra.searching.rounds import Scoring
from evohydra.searching.search_parts import Observer, SearchParts
from evohydra.searching.shortest import check_shortest
from evohydra.searching.steady import search_steadily
from evohydra.spaces import Space
from evohydra.spaces.genes import Axis

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchPlan:
    """All that decides what a search does.

    sizes: the search examples of each benchmark. start: which known merges generation 0 holds; warm: which genomes of
    an earlier run, (k, dim). validated: whether there is a validation split. ablate: what of the winner is taken back.
    steady: whether the search is asynchronous.
    """

    space: Space
    sizes: Mapping[str, int]
    objective: Objective
    pick: Rule
    fitness: Fitness
    make_optimizer: Callable[[Sequence[Axis], Points], Optimizer]
    budget: int
    seed: int
    top: int
    start: tuple[str, ...]
    warm: Points
    validated: bool
    ablate: str | None
    steady: bool = False

    def check(self) -> None:
        """ValueError for options that do not fit together, before anything is scored."""
        unknown = sorted(set(self.start) - {"sources", "uniform"})
        if unknown:
            raise ValueError(f"start: expected sources, uniform, both or none of them, got {unknown}")
        check_ablations(self.ablate, self.validated)
        self.objective.check(tuple(self.sizes), self.space.default())
        several = self.objective.several({name: [0.0] for name in self.sizes}, self.space.default())
        check_shortest(self.pick, list(several), self.start, alike=groups_of(self.fitness) is None)
        if self.space.names:  # what has none is refused later, once its only recipe has been looked at
            self.optimizer(known_points(self.space, self.start)[0]).close()

    def optimizer(self, start: Points) -> Optimizer:
        """The strategy, with what generation 0 is to hold.

        Raises ValueError where the budget is smaller than a generation, where the kind of fitness does not suit it, or
        where one of both cannot be searched with asynchronously.
        """
        made = self.make_optimizer(self.space.axes, start)
        if self.steady:
            one_by_one(made)
            if isinstance(self.fitness, NeedsGenerations) and self.fitness.needs_generations:
                raise ValueError(self.fitness.needs_generations)
        check_budget(self.budget, made)
        if isinstance(made, LearnsFromExamples) and not self.fitness.same_examples:
            raise ValueError(EVERY_EXAMPLE)
        return made

    def search(
        self,
        optimizer: Optimizer,
        fitness: Fitness,
        scoring: Scoring,
        ledger: Ledger,
        observers: Sequence[Observer],
        start: Points,
        *,
        recorded: bool = False,
    ) -> None:
        """Carry out the search, and go on where it stopped; `start` is what generation 0 holds.

        recorded: only do again what is on file, and ask for all of it again.
        """
        renewed = functools.partial(self.optimizer, start)
        parts = SearchParts(self.space, optimizer, fitness, scoring, ledger, self.budget, observers, renewed)
        if not self.steady:
            search(replace(parts, budget=ledger.replayed) if recorded else parts, ask=recorded)
            return
        with closing(Events(ledger.path.parent)) as events:
            search_steadily(replace(parts, budget=events.told) if recorded else parts, events, ask=recorded)

    def known_as(self, genome: Sequence[float]) -> str | None:
        """The name of the known merge (a source alone, or uniform) that a genome is; None where it is another one."""
        for name, node in self.space.known_merges().items():
            with suppress(ValueError):  # the space does not hold it
                if np.allclose(self.space.encode(node), genome, rtol=0, atol=1e-9):
                    return name
        return None

    def starting_points(self) -> Points:
        """What generation 0 is to hold, (k, dim); known merges that the space does not hold are left out."""
        points, left_out = known_points(self.space, self.start)
        for name, reason in left_out.items():
            logger.warning("%s is not in the search space and not in generation 0: %s", name, reason)
        return np.vstack([points, self.warm])


def known_points(space: Space, start: Sequence[str]) -> tuple[Points, dict[str, str]]:
    """The known merges that `start` asks for, (k, dim), and those that the space does not hold, with the reason."""
    points, left_out = [], {}
    for name, node in space.known_merges().items():
        if ("uniform" if name == "uniform" else "sources") in start:
            try:
                points.append(space.encode(node))
            except ValueError as reason:
                left_out[name] = str(reason)
    return np.array(points).reshape(len(points), len(space.names)), left_out


def check_budget(budget: int, optimizer: Optimizer) -> None:
    """ValueError where `budget` genomes are less than a generation."""
    if budget < optimizer.population:
        raise ValueError(
            f"budget={budget} is smaller than the first generation of {optimizer.population} genomes; raise the "
            "budget, or lower optimizer.population (of a grid: optimizer.points, or take optimizer=line)"
        )
