"""Algorithms of the package pymoo (Blank and Deb, IEEE Access 8, 2020), driven a generation at a time."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from evohydra.checks import NotNegative, Positive, Share, check, check_settings
from evohydra.checks.libraries import optional
from evohydra.searching.optimizers import (
    MOST,
    AtLeastOne,
    Points,
    dimension_of,
    favoured,
    latin_hypercube,
    starting_points,
)
from evohydra.searching.optimizers.singles import Result
from evohydra.spaces.genes import Axis

# The package itself checks neither names nor values.
KINDS: Mapping[str, Any] = {
    **dict.fromkeys(("prob", "prob_var", "prob_exch", "prob_bin"), Share | None),
    **dict.fromkeys(("eta", "max_velocity_rate"), Positive),
    **dict.fromkeys(("w", "c1", "c2"), NotNegative),
    **dict.fromkeys(("adaptive", "pertube_best", "at_least_once", "eliminate_duplicates"), bool),
    "n_offsprings": AtLeastOne | None,
}

SINGLES = ("GA", "NSGA2", "PSO")  # algorithms that have a form without generations, see `pymoo_singles`
OPERATORS = {"crossover", "mutation", "selection", "survival"}


class TakesOne(Protocol):
    """What asks for one genome at a time, see `pymoo_singles`."""

    def ask(self, number: int) -> NDArray[np.float64]:
        """Genome `number`, (dimension,)."""
        ...

    def tell(self, number: int, result: Result) -> None:
        """Learn from it."""
        ...


class Pymoo:
    """The pymoo algorithm whose class is called `algorithm`, a dotted name, with `population` genomes in a generation.

    `settings` are the algorithm's own. A setting with the key `of` is an object: of that class of pymoo, made with the
    other keys. The first generation is a Latin hypercube, drawn to what the space favours, whose first points are
    `start`. pymoo draws from a generator of its own, seeded once.

    GA, NSGA2 and PSO can be asked for one genome at a time, other algorithms cannot; nor can a PSO that perturbs its
    best genome, or a GA with another number of children than parents.
    """

    def __init__(
        self,
        *,
        axes: Sequence[Axis],
        seed: int,
        start: Points | None = None,
        algorithm: str,
        population: Annotated[int, Ge(4), Le(MOST)] = 16,
        **settings: Any,
    ) -> None:
        dimension = dimension_of(axes)
        self._wanted_by = f"optimizer={algorithm.rpartition('.')[2].lower()}"
        self.population = population
        first = favoured(latin_hypercube(population, dimension, np.random.default_rng([seed, 1])), axes)
        known = starting_points(start, dimension, population)
        first[: len(known)] = known
        self._problem = self._made("pymoo.core.problem.Problem", n_var=dimension, n_obj=1, xl=0.0, xu=1.0)
        for name in OPERATORS & settings.keys():
            check(f"optimizer.{name}", Mapping[str, object], settings[name])
        own = {
            name: self._made(key=f"optimizer.{name}", **value) if isinstance(value, Mapping) else value
            for name, value in settings.items()
        }
        self._algorithm = self._made(algorithm, "optimizer", pop_size=population, sampling=first, **own)
        endless = self._made("pymoo.core.termination.NoTermination")
        self._algorithm.setup(self._problem, termination=endless, seed=seed)
        self._asked: Any = None
        self._singles: TakesOne | None = None
        self.takes_singles = (
            type(self._algorithm).__name__ in SINGLES
            and not getattr(self._algorithm, "pertube_best", False)
            and getattr(self._algorithm, "n_offsprings", population) == population
        )

    def _made(self, of: str | None = None, key: str = "", **settings: object) -> Any:
        """An object of the class `of` of pymoo; ValueError for settings below `key` that it does not take."""
        if not isinstance(of, str) or not of.startswith("pymoo."):
            named = f"{key}.of" if "." in key else f"{key}.algorithm"
            raise ValueError(f"{named}: expected the name of a class of pymoo, got {of!r}")
        module, _, name = of.rpartition(".")
        maker = getattr(optional(module, self._wanted_by, "evohydra[strategies]"), name)
        check_settings(key, maker, settings, named=True)
        for setting, value in settings.items():
            if setting in KINDS:
                check(f"{key}.{setting}", KINDS[setting], value)
        return maker(**settings)

    def ask(self) -> Points:
        """The next generation, (genomes, dimension)."""
        self._asked = self._algorithm.ask()
        if self._asked is None:  # no child that is new
            return np.empty((0, self._problem.n_var))
        points: Points = np.clip(self._asked.get("X").astype(np.float64), 0.0, 1.0)
        return points

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Learn from one objective."""
        self._tell(fitness[:, None])

    def _tell(self, values: NDArray[np.float64]) -> None:
        """Learn from (genomes, objectives), larger is better; the package minimises."""
        self._problem.n_obj = values.shape[1]
        self._asked.set("F", -values)
        self._algorithm.tell(infills=self._asked)

    def ask_one(self, number: int, pending: Points) -> NDArray[np.float64]:
        """The next genome, (dimension,)."""
        from evohydra.searching.optimizers.pymoo_singles import SteadyState, Swarm  # the package is an extra

        if self._singles is None:
            made = Swarm if type(self._algorithm).__name__ == "PSO" else SteadyState
            self._singles = made(self._algorithm, self._problem)
        point: NDArray[np.float64] = np.clip(self._singles.ask(number), 0.0, 1.0)
        return point

    def tell_one(self, number: int, result: Result) -> None:
        """Learn from one genome."""
        assert self._singles is not None, "nothing was asked"
        self._singles.tell(number, result)

    def close(self) -> None:
        """Nothing to release."""


class PymooForObjectives(Pymoo):
    """The same for algorithms that learn from several objectives."""

    def tell_objectives(self, genomes: Points, objectives: NDArray[np.float64]) -> None:
        """Learn from all objectives."""
        self._tell(objectives)
