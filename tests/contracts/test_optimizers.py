"""What every optimizer of conf/optimizer keeps to; discovery.py says how to run it on one of your own."""

import hashlib
import random
import threading
from collections.abc import Callable
from typing import Any

import hydra.utils
import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray

from evohydra.searching.optimizers import Optimizer, latin_hypercube
from evohydra.searching.optimizers.random import RandomSearch
from evohydra.spaces.genes import Axis
from tests.contracts.discovery import BASELINES, SEARCHES, names, settings_of
from tests.elsewhere import elsewhere

OPTIMIZERS = names("optimizer")
DIMENSION = 5
CENTRE = np.linspace(0.2, 0.8, DIMENSION)
Fitness = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def sphere(genomes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest, 0, at CENTRE."""
    distances: NDArray[np.float64] = -((genomes - CENTRE) ** 2).sum(axis=1)
    return distances


def make(name: str, seed: int = 1, dimension: int = DIMENSION, start: Any = None, **settings: Any) -> Optimizer:
    spec = settings_of("optimizer", name) | settings
    if start is None and name in ("line", "soup"):  # which know nothing else
        start = np.vstack([np.eye(dimension)[:2], np.full(dimension, 0.4)])
    optimizer: Optimizer = hydra.utils.instantiate(spec)(axes=(Axis(),) * dimension, seed=seed, start=start)
    return optimizer


def trace(
    name: str, generations: int = 6, fitness: Fitness = sphere, meanwhile: Callable[[], object] = int, **arguments: Any
) -> list[NDArray[np.float64]]:
    """Each generation, (genomes, dimension), of a search that may end earlier; `meanwhile` is called between calls."""
    optimizer = make(name, **arguments)
    asked = []
    try:
        for _ in range(generations):
            meanwhile()
            genomes = optimizer.ask()
            if not len(genomes):
                break
            asked.append(genomes)
            meanwhile()
            optimizer.tell(genomes, fitness(genomes))
    finally:
        optimizer.close()
    return asked


def everything(name: str, *arguments: Any, **settings: Any) -> NDArray[np.float64]:
    """(genomes, dimension): all that is asked, see `trace`."""
    return np.vstack(trace(name, *arguments, **settings))


def fingerprints() -> dict[str, str]:
    """What each optimizer asks for, as a hash of its bytes."""
    return {name: hashlib.sha256(everything(name, seed=11).tobytes()).hexdigest() for name in OPTIMIZERS}


@pytest.fixture(scope="module")
def there() -> Any:
    """`fingerprints()` in another process with other hashes of strings."""
    return elsewhere(__name__, "fingerprints")


def test_the_suite_has_found_the_optimizers() -> None:
    assert {"cmaes", "sep_cmaes", "de", "random"} <= set(OPTIMIZERS)


@pytest.mark.parametrize("dimension", [2, DIMENSION, 40])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_generations_lie_in_the_unit_cube(name: str, dimension: int) -> None:
    """Also when the optimum is a corner."""
    if name == "grid" and dimension == 40:
        with pytest.raises(ValueError, match=r"at most 100000 combinations, got 9\.09e\+27 of 40 genes"):
            make(name, dimension=dimension)
        return
    population = (probe := make(name, dimension=dimension)).population
    probe.close()
    asked = trace(name, 12, lambda genomes: genomes.sum(axis=1), dimension=dimension)
    assert name in BASELINES or len(asked) == 12
    assert len(asked[0]) == population
    for generation in asked:
        assert generation.shape == (len(generation), dimension)
        assert generation.dtype == np.float64
        assert ((generation >= 0) & (generation <= 1)).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_space_without_genes_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="every gene is frozen"):
        make(name, dimension=0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_starting_points_are_in_generation_0(name: str) -> None:
    start = np.array([np.zeros(DIMENSION), np.ones(DIMENSION), np.linspace(0, 1, DIMENSION)])
    asked = trace(name, 8, start=start)
    for point in start:
        assert (asked[0] == point).all(axis=1).any()
    if name in SEARCHES:
        assert not np.isin(asked[0][3:], (0.0, 1.0)).any()  # the others are the optimizer's own
    every = np.vstack(asked)
    assert ((every >= 0) & (every <= 1)).all()


@pytest.mark.parametrize("name", SEARCHES)
def test_more_starting_points_than_a_generation_holds_are_cut(name: str) -> None:
    start = np.random.default_rng(0).random((500, DIMENSION))
    asked = trace(name, 2, start=start)
    np.testing.assert_array_equal(np.sort(asked[0], axis=0), np.sort(start[: len(asked[0])], axis=0))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_starting_points_of_another_dimension_are_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"\(k, 5\)"):
        make(name, start=np.zeros((DIMENSION, 2)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_repeats_in_another_process(name: str, there: dict[str, str]) -> None:
    assert there[name] == hashlib.sha256(everything(name, seed=11).tobytes()).hexdigest()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_global_random_generators_change_nothing(name: str) -> None:
    """lm-eval reseeds all of them at every call."""

    def reseed() -> None:
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)

    state = np.random.get_state()  # noqa: NPY002
    try:
        disturbed = everything(name, meanwhile=reseed)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    np.testing.assert_array_equal(disturbed, everything(name))
    assert len(np.unique(disturbed, axis=0)) == len(disturbed)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_leaves_the_global_random_generators_alone(name: str) -> None:
    def states() -> list[Any]:
        return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # noqa: NPY002

    before = states()
    trace(name)
    assert states() == before


@pytest.mark.parametrize("name", SEARCHES)
def test_another_seed_asks_for_other_points(name: str) -> None:
    one, other = everything(name, seed=1), everything(name, seed=2)
    assert not (np.isin(one, other) & (one > 0) & (one < 1)).any()


@pytest.mark.parametrize("name", SEARCHES)
def test_survives_generations_of_equal_fitness(name: str) -> None:
    """Every genome of a hard benchmark scores 0 for a long time; the search must go on looking."""
    asked = everything(name, 60, lambda genomes: np.zeros(len(genomes)))
    assert ((asked >= 0) & (asked <= 1)).all()
    assert len(np.unique(asked, axis=0)) > 60


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_survives_the_worst_value(name: str) -> None:
    """A failed genome counts as the worst one seen: one of a generation, or all but one."""

    def one_failed(genomes: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(np.arange(len(genomes)) == 0, -1e6, sphere(genomes))

    def one_left(genomes: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(np.arange(len(genomes)) == 0, sphere(genomes), -1e6)

    for fitness in (one_failed, one_left):
        asked = everything(name, 20, fitness)
        assert ((asked >= 0) & (asked <= 1)).all()


@pytest.mark.parametrize("name", SEARCHES)
def test_learns_from_400_evaluations(name: str) -> None:
    """The last generation lies much nearer to the optimum than the first, whatever the seed.

    An archive is there to be diverse, and a Gaussian process explores to the end: of them the best lies nearer. The
    latter needs a quarter of the evaluations.
    """
    (probe := make(name)).close()
    if isinstance(probe, RandomSearch):
        pytest.skip("random search does not learn")
    for seed in (1, 2, 3):
        asked = trace(name, (100 if name == "bo" else 400) // probe.population, seed=seed)
        if name in ("bo", "map_elites"):
            assert sphere(np.vstack(asked)).max() > sphere(asked[0]).max() / 8
        else:
            assert sphere(asked[-1]).mean() > sphere(asked[0]).mean() / 10


@pytest.mark.parametrize("name", ["cmaes", "sep_cmaes", "ipop", "bipop"])
def test_cmaes_starts_again_when_its_distribution_has_collapsed(name: str) -> None:
    asked = trace(name, 250, dimension=2, fitness=lambda x: -((x - 0.4) ** 2).sum(axis=1))
    spread = np.array([generation.std(axis=0).max() for generation in asked])
    collapsed = int((spread < 1e-5).argmax())
    assert 0 < collapsed < 200
    assert spread[collapsed:].max() > 0.05


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_callers_arrays_are_left_as_they_are(name: str) -> None:
    optimizer = make(name, start=(start := np.full((2, DIMENSION), [[0.25], [0.5]])))
    try:
        for _ in range(4):
            if not len(genomes := optimizer.ask()):
                break
            fitness = sphere(genomes)
            kept = genomes.copy(), fitness.copy()
            genomes.flags.writeable = fitness.flags.writeable = False
            optimizer.tell(genomes, fitness)
            np.testing.assert_array_equal(genomes, kept[0])
            np.testing.assert_array_equal(fitness, kept[1])
    finally:
        optimizer.close()
    assert (start == [[0.25], [0.5]]).all()


@pytest.mark.parametrize("generations", [0, 1, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_closing_twice_ends_all_threads_once(name: str, generations: int) -> None:
    before = set(threading.enumerate())
    optimizer = make(name)
    for _ in range(generations):
        if len(genomes := optimizer.ask()):
            optimizer.tell(genomes, sphere(genomes))
    optimizer.close()
    optimizer.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_closing_between_ask_and_tell_ends_all_threads(name: str) -> None:
    before = set(threading.enumerate())
    optimizer = make(name)
    optimizer.ask()
    optimizer.close()
    assert set(threading.enumerate()) <= before


def test_a_latin_hypercube_has_one_point_in_each_part() -> None:
    points = latin_hypercube(12, 3, np.random.default_rng(5))
    np.testing.assert_array_equal(np.sort((points * 12).astype(int), axis=0), np.arange(12)[:, None].repeat(3, axis=1))
    assert scipy.stats.qmc.discrepancy(points) < scipy.stats.qmc.discrepancy(np.random.default_rng(5).random((12, 3)))
