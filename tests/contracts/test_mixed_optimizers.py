"""What every optimizer of conf/optimizer keeps to on genomes of all kinds, where some genes bear on nothing."""

import hashlib
from typing import Any

import cmaes
import hydra.utils
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from evohydra.searching.optimizers import Optimizer
from evohydra.searching.optimizers.lean import LeanCatCMAwM, LeanCMA, LeanCMAwM
from evohydra.searching.optimizers.random import RandomSearch
from evohydra.spaces.genes import Axis
from tests.contracts.discovery import SEARCHES, names, settings_of
from tests.elsewhere import elsewhere

OPTIMIZERS = names("optimizer")

THRESHOLDS = ("cmaes", "sep_cmaes", "ipop", "bipop", "lra_cmaes")
ON_LEVELS = ["bo", "catcma", "cmawm"]  # those that ask for choices and integers as the middle of a level
CHOICES = (*(Axis("categorical", 2, favoured) for favoured in (2.0, -1.5, 0.0, 1.0)), Axis("categorical", 5))
INTEGERS = (Axis("integer", 2), Axis("integer", 7))
NUMBERS = (Axis(), Axis(favoured=1.0), Axis(), Axis())
MIXED = (*NUMBERS[:2], *CHOICES[:3], INTEGERS[0], *NUMBERS[2:], *CHOICES[3:], INTEGERS[1])
SHAPES = {
    "mixed": MIXED, "numbers": NUMBERS, "choices": CHOICES, "integers": INTEGERS, "numbers and integers":
    (*INTEGERS, *NUMBERS), "numbers and choices": (*NUMBERS, *CHOICES), "one number": NUMBERS[:1], "one choice":
    CHOICES[:1], "one of five": CHOICES[-1:], "one integer": INTEGERS[1:], "many": MIXED * 4,
}  # fmt: skip
TOO_MANY = {("grid", "mixed"), ("grid", "many")}  # combinations
DEAR = {"bo": 5, "optuna": 3}  # an ask costs as much as hundreds of others: so many times fewer generations say as much


def score(genomes: NDArray[np.float64], axes: tuple[Axis, ...]) -> NDArray[np.float64]:
    """Numbers are best at 0.3, but count only while the choice of the same rank is on; the last level is best."""
    total = np.zeros(len(genomes))
    numbers = [at for at, axis in enumerate(axes) if axis.kind == "continuous"]
    levelled = [at for at, axis in enumerate(axes) if axis.kind != "continuous"]
    for rank, at in enumerate(numbers):
        on = genomes[:, levelled[rank % len(levelled)]] > 0.5 if levelled else np.ones(len(genomes), bool)
        total -= np.where(on, (genomes[:, at] - 0.3) ** 2, 0.1)
    for at in levelled:
        total += 0.1 * np.floor(genomes[:, at] * axes[at].levels).clip(0, axes[at].levels - 1) / axes[at].levels
    return total


def make(name: str, axes: tuple[Axis, ...], seed: int = 1, **settings: Any) -> Optimizer:
    known = settings.pop("start", None)
    if known is None and name in ("line", "soup"):
        known = np.vstack([start(axes), np.full(len(axes), 0.3)])
    spec = settings_of("optimizer", name) | settings
    optimizer: Optimizer = hydra.utils.instantiate(spec)(axes=axes, seed=seed, start=known)
    return optimizer


def trace(name: str, axes: tuple[Axis, ...], generations: int = 8, flat: bool = False, **settings: Any) -> list[Any]:
    """Each generation, (genomes, dimension), of a search that may end earlier."""
    optimizer = make(name, axes, **settings)
    asked = []
    try:
        while len(asked) < generations and len(genomes := optimizer.ask()):
            asked.append(genomes)
            optimizer.tell(genomes, score(genomes, axes) * (not flat))
    finally:
        optimizer.close()
    return asked


def everything(name: str, axes: tuple[Axis, ...], *arguments: Any, **settings: Any) -> NDArray[np.float64]:
    """(genomes, dimension): all that is asked, see `trace`."""
    return np.vstack(trace(name, axes, *arguments, **settings))


def start(axes: tuple[Axis, ...]) -> NDArray[np.float64]:
    """Two points: low and high, the middle of a level where there are any."""
    return np.array([[0.5 / axis.levels if axis.levels else 0.05 for axis in axes],
                     [1 - 0.5 / axis.levels if axis.levels else 1.0 for axis in axes]])  # fmt: skip


def fingerprints() -> dict[str, str]:
    """What each optimizer asks for of all kinds of genes and of choices, as a hash of its bytes.

    Of numbers alone, test_optimizers.py compares them.
    """
    found = {}
    for name in OPTIMIZERS:
        for shape in ("mixed", "choices"):
            if (name, shape) in TOO_MANY:
                continue
            asked = everything(name, axes := SHAPES[shape], 3 if name in DEAR else 6, seed=5, start=start(axes))
            found[f"{name} {shape}"] = hashlib.sha256(asked.tobytes()).hexdigest()
    return found


def test_repeats_in_another_process() -> None:
    assert elsewhere(__name__, "fingerprints") == fingerprints()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_generations_lie_in_the_unit_cube(name: str, shape: str) -> None:
    axes = SHAPES[shape]
    if (name, shape) in TOO_MANY:
        with pytest.raises(ValueError, match="expected at most 100000 combinations"):
            make(name, axes)
        return
    asked = everything(name, axes, 30 // DEAR.get(name, 1))
    assert asked.shape[1] == len(axes)
    assert asked.dtype == np.float64
    assert ((asked >= 0) & (asked <= 1)).all()
    if name in ON_LEVELS:
        for at, axis in enumerate(axes):
            if axis.levels:
                levels = (np.arange(axis.levels) + 0.5) / axis.levels
                np.testing.assert_allclose(np.abs(asked[..., at, None] - levels).min(axis=-1), 0, atol=1e-15)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SEARCHES)
def test_survives_generations_of_equal_fitness(name: str, shape: str) -> None:
    axes = SHAPES[shape]
    every = everything(name, axes, 60 // DEAR.get(name, 1), flat=True)
    assert ((every >= 0) & (every <= 1)).all()
    for at, axis in enumerate(axes):
        if axis.levels and name not in THRESHOLDS:  # thresholds may wander off: what a margin prevents
            assert len(np.unique(np.floor(every[:, at] * axis.levels).clip(0, axis.levels - 1))) > 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_starting_points_are_in_generation_0(name: str, shape: str) -> None:
    if (name, shape) in TOO_MANY:
        return
    points = start(SHAPES[shape])
    asked = trace(name, SHAPES[shape], 4, start=points)
    for point in points:
        assert np.isclose(asked[0], point, rtol=0, atol=1e-15).all(axis=1).any()  # scipy's DE rounds


@pytest.mark.parametrize("name", SEARCHES)
def test_learns_where_genes_bear_on_nothing(name: str) -> None:
    (probe := make(name, MIXED)).close()
    if isinstance(probe, RandomSearch):
        pytest.skip("random search does not learn")
    gains = []
    for seed in (1,) if name in DEAR else (1, 2, 3):
        asked = trace(name, MIXED, (200 if name == "bo" else 800) // probe.population, seed=seed)
        best = np.max if name == "map_elites" else np.mean  # an archive is there to be diverse
        first, last = (best(score(generation, MIXED)) for generation in (asked[0], np.vstack(asked[-3:])))
        gains.append(last - first)
    assert np.mean(gains) > 0.15  # of some 0.5 between the worst and the best
    assert min(gains) > 0.1


@pytest.mark.parametrize("name", ["catcma", "cmawm", *THRESHOLDS])
def test_what_the_space_favours_is_likely_at_first(name: str) -> None:
    axes = tuple(Axis("categorical", 2, favoured) for favoured in (2.0, -1.5, 0.0, 1.0))
    generation = trace(name, (*axes, Axis("categorical", 3), *NUMBERS), 1, population=4000)[0]
    margin = 1 - 0.73 ** (1 / 5) if name == "catcma" else 0.0
    expected = norm.cdf([2.0, -1.5, 0.0, 1.0]).clip(margin, 1 - margin)
    np.testing.assert_allclose((generation[:, :4] > 0.5).mean(axis=0), expected, atol=0.025)
    np.testing.assert_allclose(generation[:, 5:].mean(axis=0), [0.5, 0.5 + 1 / 6, 0.5, 0.5], atol=0.03)


@pytest.mark.parametrize("name", ["catcma", "cmawm"])
def test_no_level_is_given_up(name: str) -> None:
    """Also after 200 generations that all found it worse: the margin."""
    axes = (*CHOICES, *INTEGERS, *NUMBERS)
    late = np.vstack(trace(name, axes, 200)[150:])
    tried = [len(np.unique(late[:, at])) for at, axis in enumerate(axes) if axis.levels]
    assert all(count > 1 for count in tried)


@pytest.mark.parametrize("name", ["catcma", "cmawm", "cmaes", "sep_cmaes"])
@pytest.mark.parametrize("shape", ["numbers", "numbers and choices"])
def test_starts_again_when_its_distribution_has_collapsed(name: str, shape: str) -> None:
    axes = SHAPES[shape]
    spread = np.array([generation[:, :4].std(axis=0).max() for generation in trace(name, axes, 1200)])
    collapsed = int((spread < 1e-5).argmax())
    assert 0 < collapsed < 1000
    assert spread[collapsed:].max() > 0.05


@pytest.mark.parametrize("gap", [1, 3])
def test_the_lean_strategies_are_those_of_the_package(gap: int) -> None:
    """The same numbers to rounding; decomposing less often changes little."""
    n = 6
    bounds = np.tile([0.0, 1.0], (n, 1))
    steps = np.array([0.0, 0.0, 0.0, 1.0, 0.5, 0.25])
    shared = {"mean": np.full(n, 0.4), "sigma": 0.2, "bounds": bounds, "seed": 3, "population_size": 10}

    def run(strategy: Any) -> NDArray[np.float64]:
        means = []
        for _ in range(12):
            asked = [strategy.ask() for _ in range(10)]
            points = [each if isinstance(each, np.ndarray) else each[0] for each in asked]
            told = [each if isinstance(each, np.ndarray) else each[1] for each in asked]
            values = [float(((x - np.linspace(0.1, 0.9, n)) ** 2 * np.arange(1, n + 1)).sum()) for x in points]
            strategy.tell(list(zip(told, values, strict=True)))
            means.append(strategy.mean.copy())
        return np.array(means)

    lean = LeanCMA(**shared)
    lean._gap = gap
    expected = run(cmaes.CMA(**shared))
    np.testing.assert_allclose(run(lean)[: 1 if gap > 1 else 12], expected[: 1 if gap > 1 else 12], rtol=1e-7)
    if gap == 1:
        margin = LeanCMAwM(**shared, steps=steps, n_max_resampling=100)
        np.testing.assert_allclose(run(margin), run(cmaes.CMAwM(**shared, steps=steps)), rtol=1e-7)


def test_the_lean_catcma_is_that_of_the_package() -> None:
    spaces: dict[str, Any] = {
        "x_space": [[-9.0, 9.0]] * 3, "z_space": [[0, 1, 2, 3], [0, 0.5, 1]], "c_space": [2, 4], "mean": np.ones(5),
        "sigma": 0.7, "seed": 4, "population_size": 12,
    }  # fmt: skip
    means = []
    for strategy in (LeanCatCMAwM(resampling=100, gaussians=5, **spaces), cmaes.CatCMAwM(**spaces, cov=np.eye(5))):
        spaces["mean"] = np.ones(5)
        for _ in range(15):
            asked = [strategy.ask() for _ in range(12)]
            values = [float(((s.x - 0.5) ** 2).sum() + s.z.sum() + s.c[:, 0].sum()) for s in asked]
            strategy.tell(list(zip(asked, values, strict=True)))
        means.append(np.concatenate([strategy._mean, strategy._q.ravel(), [strategy._sigma]]))
    np.testing.assert_allclose(means[0], means[1], rtol=1e-7)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name == "optuna" else name for name in SEARCHES],  # 12 s a genome
)
def test_holds_the_papers_genome(name: str) -> None:
    """192 slots and a matrix of 64 x 64 scales, in a memory that does not grow with the generation."""
    axes = (Axis("categorical", 2, 2.0),) * 32 + (Axis("categorical", 2),) * 160 + (Axis(),) * 4096
    if name in ("bo", "lra_cmaes"):
        with pytest.raises(ValueError, match="expected at most 400 genes, got 4288"):
            make(name, axes)
        return
    optimizer = make(name, axes, population=8)
    try:
        for _ in range(1 if name == "optuna" else 3):
            genomes = optimizer.ask()
            assert genomes.shape == (8, 4288)
            assert ((genomes >= 0) & (genomes <= 1)).all()
            optimizer.tell(genomes, score(genomes, axes))
    finally:
        optimizer.close()
