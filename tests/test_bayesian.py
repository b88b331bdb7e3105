"""optimizer=bo: its model against scikit-learn's, its gradients, noise, several objectives, and resuming."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import approx_fprime
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from evohydra.recipe import Node, digest
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.job import Evaluation, Examples
from evohydra.searching.driver import search
from evohydra.searching.feedback import tell
from evohydra.searching.fitness.full import Full
from evohydra.searching.fronts import on_front
from evohydra.searching.ledger import Ledger, Record
from evohydra.searching.optimizers import LearnsFromEstimates, StateIsData
from evohydra.searching.optimizers.bo import LOCAL, MOST, BayesianOptimization, fitted_on
from evohydra.searching.optimizers.cmaes import CMAES
from evohydra.searching.optimizers.gaussian.acquisitions import Improvement
from evohydra.searching.optimizers.gaussian.features import Features
from evohydra.searching.optimizers.gaussian.first import sobol
from evohydra.searching.optimizers.gaussian.improvement import log_h, slope_of_log_h
from evohydra.searching.optimizers.gaussian.model import (
    JITTER,
    GaussianProcess,
    Hyperparameters,
    fitted,
    negative_log_posterior,
)
from evohydra.searching.optimizers.gaussian.ranges import Ranges
from evohydra.searching.optimizers.gaussian.scaling import standardized
from evohydra.searching.optimizers.gaussian.trust import FIRST, box, length
from evohydra.searching.rounds import Scoring
from evohydra.searching.search_parts import SearchParts
from evohydra.spaces.genes import Axis
from tests.scripted import scheduling
from tests.test_parameter_space import space

Values = NDArray[np.float64]
HYPER = Hyperparameters(np.array([0.4, 0.9, 0.6]), 1.3, 0.01)


def data(count: int = 20, seed: int = 0) -> tuple[Values, Values]:
    generator = np.random.default_rng(seed)
    points = generator.random((count, 3))
    return points, np.sin(5 * points[:, 0]) + points[:, 1] ** 2 + 0.05 * generator.normal(size=count)


def make(dimension: int = 3, seed: int = 1, **settings: Any) -> BayesianOptimization:
    return BayesianOptimization(axes=settings.pop("axes", (Axis(),) * dimension), seed=seed, **settings)


def test_the_model_predicts_as_scikit_learns() -> None:
    points, values = data()
    process = GaussianProcess(points, np.arange(3), values, HYPER)
    kernel = ConstantKernel(HYPER.signal, "fixed") * Matern(HYPER.scales, "fixed", nu=2.5)
    theirs = GaussianProcessRegressor(kernel, alpha=HYPER.noise + JITTER, optimizer=None)
    theirs.fit(points, values - process.mean)
    new = np.random.default_rng(1).random((50, 3))
    mean, deviation = theirs.predict(new, return_std=True)
    np.testing.assert_allclose(process.predict(new)[0], mean + process.mean, rtol=1e-8)
    np.testing.assert_allclose(process.predict(new)[1], deviation, rtol=1e-6)


def test_the_mean_is_that_of_generalised_least_squares() -> None:
    """Far from all data the model expects it; of values that are all the same it is that value."""
    points, _ = data()
    process = GaussianProcess(points, np.arange(3), np.full(20, 0.7), HYPER)
    assert process.predict(np.full((1, 3), 1e6))[0][0] == pytest.approx(0.7)
    assert process.predict(points)[0] == pytest.approx(np.full(20, 0.7))


def test_gradients_are_those_of_finite_differences() -> None:
    points, values = data()
    process = GaussianProcess(points, np.arange(3), values, HYPER)
    at = np.array([0.3, 0.55, 0.8])
    mean, deviation, of_mean, of_deviation = process.gradients(at)
    assert (mean, deviation) == pytest.approx([each[0] for each in process.predict(at[None])])
    np.testing.assert_allclose(of_mean, approx_fprime(at, lambda x: process.predict(x[None])[0][0], 1e-7), rtol=1e-4)
    np.testing.assert_allclose(
        of_deviation, approx_fprime(at, lambda x: process.predict(x[None])[1][0], 1e-7), rtol=1e-3, atol=1e-5
    )
    gain = Improvement(process, 2.5)
    value, slope = gain.slope(at)
    assert value == pytest.approx(gain(at[None])[0])
    np.testing.assert_allclose(slope, approx_fprime(at, lambda x: gain(x[None])[0], 1e-7), rtol=1e-3)


@pytest.mark.parametrize("known", [None, np.linspace(0.0, 0.3, 20)])
def test_the_posterior_of_hyperparameters_has_the_gradient_of_finite_differences(known: Values | None) -> None:
    """Of numbers and of a choice, whose options are one-hot."""
    points, values = data()
    features = Features.of((Axis(), Axis(), Axis("categorical", 3)))
    logs = np.log([0.4, 0.8, 0.6, 1.1, 0.02])
    arguments = (features(points), features.gene, values, known)
    _, gradient = negative_log_posterior(logs, *arguments)
    expected = approx_fprime(logs, lambda x: negative_log_posterior(x, *arguments)[0], 1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)


def test_a_fit_finds_which_genes_matter_and_the_noise() -> None:
    generator = np.random.default_rng(3)
    points = generator.random((120, 4))
    values, scale = standardized(np.sin(6 * points[:, 1]) + 0.1 * generator.normal(size=120))
    found = fitted(points, np.arange(4), values)
    assert found.scales[1] < 0.3 * np.delete(found.scales, 1).min()
    assert 0.05 / scale < np.sqrt(found.noise) < 0.2 / scale


def test_the_improvement_is_the_integral() -> None:
    """E max(f - best, 0), and its logarithm where it is too small for a float."""
    for z in (-6.0, -1.5, -0.99, 0.0, 2.0):
        expected = quad(lambda x, z=z: (z + x) * norm.pdf(x), -z, 12)[0]
        assert log_h(np.array([z]))[0] == pytest.approx(np.log(expected), abs=1e-6)
    z = np.array([-50.0, -1e3, -9999.0, -10001.0, -1e5])
    far = -0.5 * z**2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(-z) + np.log1p(-3 / z**2)  # its asymptotic series
    np.testing.assert_allclose(log_h(z), far, rtol=1e-6)
    for at in (-40.0, -2.0, -1.0, 1.0):
        assert slope_of_log_h(at) == pytest.approx(
            (log_h(np.array([at + 1e-5])) - log_h(np.array([at - 1e-5])))[0] / 2e-5, rel=1e-4
        )


def test_broken_models_do_not_set_the_scale() -> None:
    values = np.array([0.1, 0.2, 0.3, 0.4, 0.5, -1e6])
    told, scale = standardized(values)
    assert scale < 0.5
    assert (np.diff(told[:5]) > 0.2).all()
    assert told[5] < told[:5].min()
    assert standardized(np.full(4, 0.3))[0].tolist() == [0.0] * 4


def test_choices_are_at_distance_one_and_integers_on_levels() -> None:
    features = Features.of((Axis("categorical", 4), Axis("integer", 5), Axis()))
    rows = features(np.array([[0.1, 0.05, 0.3], [0.9, 0.15, 0.3], [0.6, 0.95, 0.3]]))
    squared = ((rows[:, None, :4] - rows[None, :, :4]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(squared, 1 - np.eye(3))
    assert rows[:, 4].tolist() == pytest.approx([0.1, 0.1, 0.9])
    assert features.gene.tolist() == [0, 0, 0, 0, 1, 2]


def test_the_first_points_are_where_the_space_favours_them() -> None:
    axes = (Axis("categorical", 2, 1.5), Axis("categorical", 2), Axis(favoured=1.0), Axis())
    points = sobol(axes, 512, seed=2)
    assert (points[:, 0] > 0.5).mean() == pytest.approx(norm.cdf(1.5), abs=0.01)
    assert (points[:, 1] > 0.5).mean() == pytest.approx(0.5, abs=0.01)
    assert points[:, 2:].mean(axis=0) == pytest.approx([0.5 + 1 / 6, 0.5], abs=0.01)


def valley(genomes: Values) -> Values:
    """Largest, 1, where all genes are 0.85, but for half of them hardly anything depends on it."""
    weights = np.where(np.arange(genomes.shape[1]) % 2, 1.0, 0.05)
    found: Values = np.exp(-2 * (weights * (genomes - 0.85) ** 2).sum(axis=1))
    return found


@pytest.mark.parametrize("dimension", [8, 16])
def test_it_needs_a_fraction_of_the_evaluations_of_cmaes(dimension: int) -> None:
    """In 80 evaluations nearer than CMA-ES in 160."""
    best = {}
    for maker, budget in ((BayesianOptimization, 80), (CMAES, 160)):
        found = []
        for seed in (1, 2, 3):
            strategy, told = maker(axes=(Axis(),) * dimension, seed=seed), np.empty(0)
            while len(told) < budget:
                genomes = strategy.ask()
                strategy.tell(genomes, valley(genomes))
                told = np.concatenate([told, valley(genomes)])
            found.append(told[:budget].max())
        best[maker] = np.mean(found)
    assert best[BayesianOptimization] > best[CMAES]


def test_a_batch_is_spread_and_holds_nothing_twice() -> None:
    strategy = make(4, batch=8)
    strategy.tell(first := strategy.ask(), valley(first))
    asked = np.vstack([first, batch := strategy.ask()])
    assert len(batch) == 8
    distances = np.linalg.norm(asked[:, None] - asked[None], axis=-1) + 9 * np.eye(len(asked))
    assert distances.min() > 1e-3


def test_error_bars_say_how_much_a_genome_is_believed() -> None:
    """One lucky genome is where the search looks next if it is exact, and not if it is a guess."""
    generator = np.random.default_rng(0)
    genomes = generator.random((24, 2))
    values = -((genomes - 0.5) ** 2).sum(axis=1)
    genomes[0], values[0] = [0.05, 0.95], 0.3

    def nearest(error_bars: Values) -> float:
        strategy = make(2, batch=3)
        strategy.tell_estimates(genomes, values[:, None], error_bars)
        return float(np.linalg.norm(strategy.ask() - genomes[0], axis=1).mean())

    lucky = np.where(np.arange(24) == 0, 1.0, 0.01)
    assert nearest(np.full(24, 0.01)) < 0.25
    assert nearest(lucky) > 0.4


def test_error_bars_of_records_are_told() -> None:
    class Listening:
        population = 1

        def tell_estimates(self, genomes: Values, objectives: Values, error_bars: Values) -> None:
            self.told = objectives.tolist(), error_bars.tolist()

    listening: Any = Listening()
    assert isinstance(listening, LearnsFromEstimates)
    records = [
        Record(0, 0, [0.1], {}, "a", 0.5, {"b": [0.5]}, error_bar=0.07),
        Record(1, 0, [0.2], {}, "b", None, {}, error="failed"),
        Record(2, 0, [0.3], {}, "c", 0.7, {"b": [0.7]}),
    ]
    tell(listening, np.array([[0.1], [0.2], [0.3]]), records, records)
    assert listening.told == ([[0.5], [0.5], [0.7]], [0.07, 0.0, 0.0])


def test_of_several_objectives_it_finds_the_front() -> None:
    """Two tasks that want the genes at 0.2 and at 0.8: the front is the line between, in any order of its points."""

    def objectives(x: Values) -> Values:
        return -np.stack([((x - 0.2) ** 2).mean(axis=1), ((x - 0.8) ** 2).mean(axis=1)], axis=1)

    strategy = make(5, seed=2)
    every, told = np.empty((0, 5)), np.empty((0, 2))
    while len(every) < 80:
        genomes = strategy.ask()
        strategy.tell_estimates(genomes, objectives(genomes), np.zeros(len(genomes)))
        every, told = np.vstack([every, genomes]), np.vstack([told, objectives(genomes)])
    front = every[on_front(told)]
    assert len(front) > 12
    along = front.mean(axis=1)
    assert (np.abs(front - along[:, None]).mean(axis=1) < 0.12).mean() > 0.7
    assert along.min() < 0.3
    assert along.max() > 0.7


def test_of_too_many_genes_it_says_what_to_take() -> None:
    with pytest.raises(ValueError, match=rf"expected at most {MOST} genes, got 401; choose optimizer=sep_cmaes"):
        make(401)
    make(MOST).close()


def test_a_trust_region_grows_with_success_and_shrinks_without() -> None:
    first, batch, genes = 4, 2, 10  # patience: five generations
    rising = np.arange(4 + 2 * 6, dtype=np.float64)
    assert length(rising[:4], first, batch, genes) == FIRST
    assert length(rising[: 4 + 6], first, batch, genes) == 2 * FIRST
    assert length(rising, first, batch, genes) == 1.6  # no longer than this
    flat = np.zeros(400)
    assert length(flat[: 4 + 8], first, batch, genes) == FIRST
    assert length(flat[: 4 + 10], first, batch, genes) == FIRST / 2
    assert length(flat[: 4 + 10 * 7], first, batch, genes) == FIRST  # shorter than the shortest: anew
    low, high = box(np.array([0.5, 0.5, 0.05]), 0.4, np.array([1.0, 4.0, 2.0]), np.zeros(3), np.ones(3))
    np.testing.assert_allclose(low, [0.4, 0.1, 0.0])
    np.testing.assert_allclose(high, [0.6, 0.9, 0.25])


def test_hyperparameters_are_fitted_less_often_as_fits_become_dear() -> None:
    sizes = [fitted_on(count) for count in range(1, 500)]
    assert all(1 <= size <= count for count, size in enumerate(sizes, start=1))
    assert sizes == sorted(sizes)
    assert sizes[:19] == list(range(1, 20))
    assert len(set(sizes)) < 100
    assert all(count - size < 1 + 0.06 * count for count, size in enumerate(sizes, start=1))


@pytest.mark.parametrize("axes", [(Axis(),) * 5, (Axis(),) * (LOCAL + 1), (Axis(), Axis("categorical", 3), Axis())])
def test_all_of_its_state_is_what_it_was_told(axes: tuple[Axis, ...]) -> None:
    """One that was told without being asked goes on as the one that was asked: bit for bit."""
    asked, told = make(axes=axes, seed=5), make(axes=axes, seed=5)
    for _ in range(8):
        genomes = asked.ask()
        for strategy in (asked, told):
            strategy.tell(genomes, valley(genomes))
    np.testing.assert_array_equal(told.ask(), asked.ask())
    np.testing.assert_array_equal(told.ask(), told.ask())  # and asking changes nothing


def test_ranges_grow_where_most_of_the_best_genomes_lie_at_an_end() -> None:
    ranges = Ranges.of([Axis(begins=(0.25, 0.75)), Axis(begins=(0.0, 0.5)), Axis()])
    np.testing.assert_allclose(ranges.low, [-0.5, 0.0, 0.0])
    np.testing.assert_allclose(ranges.high, [1.5, 2.0, 1.0])
    points = np.tile([0.5, 0.995, 1.0], (6, 1))
    points[0] = [0.0, 0.5, 0.5]  # the worst one
    values = np.arange(6.0)
    for count, high in ((1, 1.0), (4, 1.25), (6, 1.25)):  # what is best lies inside of the wider range
        low, found = ranges.grown(points[:count], values[:count], 2, 2)
        np.testing.assert_allclose(low, [0.0, 0.0, 0.0])
        np.testing.assert_allclose(found, [1.0, high, 1.0])
    pressing = np.tile([-9.0, 9.0, 0.5], (40, 1))
    low, high = ranges.grown(pressing, np.zeros(40), 4, 4)
    np.testing.assert_allclose((low, high), ([-0.5, 0.0, 0.0], [1.0, 2.0, 1.0]))  # the ends of the cube
    points = np.random.default_rng(1).random((7, 3))
    np.testing.assert_allclose(ranges.inside(ranges.outside(points)), points)
    same = Ranges.of([Axis()] * 3)
    np.testing.assert_array_equal(same.inside(same.outside(points)), points)


def test_a_search_goes_beyond_the_ranges_that_it_begins_with_only_where_they_bind() -> None:
    axes = (Axis(begins=(0.2, 0.6)),) * 4
    best = np.array([0.9, 0.4, 0.4, 0.4])
    strategy, told, asked = make(axes=axes, seed=2), np.empty(0), np.empty((0, 4))
    while len(told) < 70:
        genomes = strategy.ask()
        values = -((genomes - best) ** 2).sum(axis=1)
        strategy.tell(genomes, values)
        told, asked = np.concatenate([told, values]), np.vstack([asked, genomes])
    assert np.abs(asked[told.argmax()] - best).max() < 0.05
    assert (asked[:9] >= 0.2 - 1e-12).all()
    assert (asked[:9] <= 0.6 + 1e-12).all()
    assert asked[:, 0].max() > 0.85
    assert asked[:, 1:].max() <= 0.71


@pytest.mark.parametrize("genes", [5, LOCAL + 1])
def test_a_search_that_widens_ranges_goes_on_bit_for_bit(genes: int) -> None:
    axes = (Axis(begins=(1 / 6, 2 / 3)),) * genes
    asked, told = make(axes=axes, seed=5), make(axes=axes, seed=5)
    for _ in range(8):
        genomes = asked.ask()
        assert genomes.min() >= 0.0
        assert genomes.max() <= 1.0
        for strategy in (asked, told):
            strategy.tell(genomes, valley(genomes))
    np.testing.assert_array_equal(told.ask(), asked.ask())


class Digest:
    """Scores a recipe by its digest."""

    def __init__(self) -> None:
        self.scored = 0

    def __call__(self, recipe: Node, split: Split, examples: Examples | None = None) -> Evaluation:
        self.scored += 1
        return Evaluation({"hash": [int(digest(recipe)[:8], 16) / 2**32]})


def test_a_search_that_goes_on_asks_for_one_generation_only(tmp_path: Path) -> None:
    """And for the one that the uninterrupted search asked for; the others come from the ledger."""

    def carried_out(directory: Path, budget: int) -> tuple[bytes, int, int]:
        asked = []

        class Counting(BayesianOptimization):
            def ask(self) -> Values:
                asked.append(None)
                return super().ask()

        found, evaluate = space(), Digest()
        with (
            closing(Ledger(directory, {"seed": 1})) as ledger,
            scheduling(evaluate, directory) as scheduler,
        ):
            strategy = Counting(axes=found.axes, seed=3, population=6)
            assert isinstance(strategy, StateIsData)
            sizes = {"hash": 1}
            fitness, scoring = Full(sizes=sizes, seed=3), Scoring(scheduler, sizes)
            search(SearchParts(found, strategy, fitness, scoring, ledger, budget))
        return (directory / "ledger.jsonl").read_bytes(), len(asked), evaluate.scored

    alone, every, _ = carried_out(tmp_path / "alone", 30)
    assert every == 7
    file = tmp_path / "killed" / "ledger.jsonl"
    carried_out(file.parent, 30)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:23]))
    (file.parent / "scores.jsonl").unlink()
    again, asked, scored = carried_out(file.parent, 30)
    assert without_seconds(again) == without_seconds(alone)
    assert asked == 2  # the one that was cut short, and the one after it
    assert scored <= 10


def without_seconds(ledger: bytes) -> list[dict[str, Any]]:
    import json

    return [{**json.loads(line), "seconds": None} for line in ledger.splitlines()]
