"""When CMA-ES has stopped, how it starts again: as before, with more samples (IPOP), or in two regimes (BIPOP)."""

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Gt

Factor = Annotated[float, Gt(1)]  # how many times the samples of a restart


@dataclass(frozen=True)
class Regime:
    """One run of CMA-ES. anywhere: its first mean is uniform in the cube. limit: of its evaluations."""

    population: int
    sigma: float
    anywhere: bool = False
    limit: float = math.inf


Restarts = Generator[Regime, int, None]  # is sent the evaluations of the run that has ended


def same(population: int, sigma: float, generator: np.random.Generator) -> Restarts:
    """Again from the first mean."""
    while True:
        yield Regime(population, sigma)


def ipop(population: int, sigma: float, generator: np.random.Generator, *, factor: Factor = 2.0) -> Restarts:
    """Each time with `factor` times the samples, from anywhere (Auger and Hansen, CEC 2005, section II)."""
    yield Regime(population, sigma)
    while True:
        population = math.ceil(population * factor)
        yield Regime(population, sigma, anywhere=True)


def bipop(population: int, sigma: float, generator: np.random.Generator, *, factor: Factor = 2.0) -> Restarts:
    """IPOP, and as many evaluations in runs with few samples and small steps (Hansen, GECCO 2009 workshop, section 2).

    Whichever regime has used fewer evaluations is next. A run of the second one has at most half of the evaluations of
    the last run of the first.
    """
    yield Regime(population, sigma)
    many, spent_on_many, spent_on_few, last = population, 0, 0, 0
    while True:
        if spent_on_many <= spent_on_few:
            many = math.ceil(many * factor)
            last = yield Regime(many, sigma, anywhere=True)
            spent_on_many += last
        else:
            few = math.floor(population * (0.5 * many / population) ** (generator.random() ** 2))
            smaller = sigma * 10 ** (-2 * generator.random())
            spent_on_few += yield Regime(max(few, 2), smaller, anywhere=True, limit=last / 2)
