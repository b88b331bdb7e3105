"""Samplers of the package Optuna (Akiba et al., arXiv 1907.10902), through its ask and tell."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evohydra.checks import check_settings
from evohydra.checks.libraries import optional
from evohydra.searching.masking import shown_text
from evohydra.searching.optimizers import AtLeastOne, Points, dimension_of, level_of, starting_points
from evohydra.searching.optimizers.singles import Result
from evohydra.spaces.genes import Axis

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import Trial

WANTED_BY = "optimizer=optuna"
OURS = "evohydra"  # a mark of studies that a search has made


class Optuna:
    """The sampler whose class in `optuna.samplers` is called `sampler`; `settings` are its own.

    `population` genomes are asked for at a time, before any of them is told. The first ones are `start`. storage: a URL
    of a database, in which optuna-dashboard can follow the search as the study `study`; None: in memory. A search that
    goes on makes its study anew from what it has on file. Optuna itself is made for single trials in any order.
    """

    takes_singles = True

    def __init__(
        self,
        *,
        axes: Sequence[Axis],
        seed: int,
        start: Points | None = None,
        sampler: str = "TPESampler",
        population: AtLeastOne = 4,
        storage: str | None = None,
        study: str = "evohydra",
        **settings: object,
    ) -> None:
        dimension = dimension_of(axes)
        self.population, self._axes = population, tuple(axes)
        self._optuna = optional("optuna", WANTED_BY, "evohydra[optuna]")
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        self._study = self._made(self._sampler(sampler, seed, settings), storage, study)
        self._distributions = {f"gene {at}": self._distribution(axis) for at, axis in enumerate(axes)}
        self._genes = tuple(zip(self._distributions, self._axes, strict=True))
        for point in starting_points(start, dimension, population):
            self._study.enqueue_trial(dict(zip(self._distributions, map(_value, point, axes), strict=True)))
        self._asked: list[Trial] = []
        self._open: dict[int, Trial] = {}  # of single asks

    def _sampler(self, name: str, seed: int, settings: Mapping[str, object]) -> object:
        known = [each for each in dir(self._optuna.samplers) if each.endswith("Sampler") and each != "BaseSampler"]
        if name not in known:
            raise ValueError(f"optimizer.sampler: expected one of {', '.join(known)}, got {name!r}")
        maker = getattr(self._optuna.samplers, name)
        check_settings("optimizer", maker, settings, named=True)
        with warnings.catch_warnings():  # what Optuna calls experimental
            warnings.simplefilter("ignore")
            try:
                return maker(seed=seed, **settings)
            except TypeError as error:
                raise ValueError(f"optimizer.sampler={name}: it is not made of a seed and settings: {error}") from error

    def _made(self, sampler: object, storage: str | None, name: str) -> "Study":
        """A new study; one of that name that evohydra has made before is replaced, another one refused."""
        if storage is not None and name in self._studies(storage):
            earlier = self._optuna.load_study(study_name=name, storage=storage)
            if OURS not in earlier.user_attrs:
                raise ValueError(
                    f"optimizer.study: {storage} has a study {name!r} that evohydra did not make; choose another name"
                )
            self._optuna.delete_study(study_name=name, storage=storage)
        study: Study = self._optuna.create_study(
            study_name=name, storage=storage, sampler=sampler, direction="maximize"
        )
        study.set_user_attr(OURS, True)
        return study

    def _studies(self, storage: str) -> list[str]:
        """The studies in a database; ValueError where there is none at that URL."""
        try:
            names: list[str] = self._optuna.get_all_study_names(storage)
        except Exception as error:  # of SQLAlchemy and of the database's own library
            raise ValueError(
                "optimizer.storage: expected the URL of a database that can be opened, as sqlite:///search.db, got "
                f"{shown_text(storage)!r}: {type(error).__name__}"
            ) from None
        return names

    def _distribution(self, axis: Axis) -> "BaseDistribution":
        of, kind = self._optuna.distributions, axis.kind
        made: BaseDistribution = (
            of.FloatDistribution(0.0, 1.0)
            if kind == "continuous"
            else of.IntDistribution(0, axis.levels - 1)
            if kind == "integer"
            else of.CategoricalDistribution(tuple(range(axis.levels)))
        )
        return made

    def ask(self) -> Points:
        """The next generation, (population, dimension)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._asked = [self._study.ask(self._distributions) for _ in range(self.population)]
        return np.array([self._genome(trial) for trial in self._asked], dtype=np.float64)

    def _genome(self, trial: "Trial") -> list[float]:
        return [_unit(trial.params[name], axis) for name, axis in self._genes]

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Learn from the generation that was asked; of one that is cut short the others stay open."""
        for trial, value in zip(self._asked, fitness, strict=False):
            self._study.tell(trial, float(value))

    def ask_one(self, number: int, pending: Points) -> NDArray[np.float64]:
        """The next genome, (dimension,); the sampler knows which trials are running."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._open[number] = trial = self._study.ask(self._distributions)
        return np.array(self._genome(trial), dtype=np.float64)

    def tell_one(self, number: int, result: Result) -> None:
        """Learn from one trial."""
        self._study.tell(self._open.pop(number), result.fitness)

    def close(self) -> None:
        """Nothing to release."""


def _value(unit: float, axis: Axis) -> float | int:
    """A coordinate of the unit cube as Optuna's parameter."""
    return float(unit) if axis.kind == "continuous" else level_of(unit, axis.levels)


def _unit(value: float, axis: Axis) -> float:
    """Optuna's parameter as a coordinate of the unit cube; a level is its middle."""
    return float(value) if axis.kind == "continuous" else (value + 0.5) / axis.levels
