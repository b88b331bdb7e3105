"""What a search's Gaussian process has learnt, and how the report shows it."""

import json
from pathlib import Path

import numpy as np
import pytest

from evohydra.report.gathering import gather
from evohydra.report.surrogate import TRUSTED, surrogate, surrogate_blocks
from evohydra.report.writing import write_report
from evohydra.searching.fitness.likelihood import BY_METRIC
from evohydra.searching.optimizers.bo import BayesianOptimization
from evohydra.spaces.genes import Axis
from tests.commands import evohydra, json_lines, workspace, write_lines


def smooth(genomes: np.ndarray) -> np.ndarray:
    """The first gene matters much, the second a little, others not at all."""
    return np.asarray(-4 * (genomes[:, 0] - 0.3) ** 2 - 0.3 * (genomes[:, 1] - 0.6) ** 2)


def test_what_was_learnt_is_in_units_of_the_fitness_and_of_the_cube():
    axes = [Axis(begins=(0.25, 0.75)), Axis(), Axis(), Axis()]
    made = BayesianOptimization(axes=axes, seed=1, population=24)
    assert made.learnt() is None
    genomes = made.ask()
    made.tell(genomes, 7 + smooth(genomes))
    learnt = made.learnt()
    assert learnt is not None
    points = np.random.default_rng(1).uniform(0.3, 0.7, (20, 4))
    mean, deviation = learnt.predict(points)
    assert np.abs(mean - 7 - smooth(points)).max() < 0.15
    assert (deviation > 0).all()
    assert learnt.length_scales.argmin() == 0
    assert 0 < learnt.noise < 0.1


def test_several_objectives_have_no_one_model():
    made = BayesianOptimization(axes=[Axis(), Axis()], seed=1, population=6)
    genomes = made.ask()
    made.tell_estimates(genomes, genomes, np.zeros(len(genomes)))
    assert made.learnt() is None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("surrogate")
    options = ["optimizer=bo", "optimizer.population=12", "fitness=full", "budget=28", "top=2", "baselines=null"]
    done = evohydra(*[o for o in workspace(root) if not o.startswith("optimizer")], *options, "run=bo", cwd=root)
    assert done.returncode == 0, done.stderr
    return root / "outputs" / "bo"


def made_up(run: Path, directory: Path, fitness: object = smooth, notes: object = None) -> Path:
    """A run on file whose genomes are random and whose fitness is a function's."""
    directory.mkdir()
    for name in ("run.json", "settings.json"):
        (directory / name).write_bytes((run / name).read_bytes())
    kept = json.loads((directory / "settings.json").read_text())
    axes = [Axis(**{**each["axis"], "begins": tuple(each["axis"]["begins"])}) for each in kept["axes"]]
    genomes = np.random.default_rng(2).random((40, len(axes)))
    values = fitness(genomes)  # type: ignore[operator]
    lines = json_lines(run / "ledger.jsonl")
    records = [
        {
            **lines[0],
            "index": at,
            "generation": at // 4,
            "genome": list(map(float, genome)),
            "fitness": float(value),
            "note": notes(at) if notes else None,
        }  # type: ignore[operator]
        for at, (genome, value) in enumerate(sorted(zip(genomes, values, strict=True), key=lambda each: each[1]))
    ]
    write_lines(directory / "ledger.jsonl", records)
    return directory


def test_the_report_of_a_run_shows_its_model(run: Path, tmp_path: Path):
    assert len(json.loads((run / "settings.json").read_text())["axes"]) == len(
        json_lines(run / "ledger.jsonl")[0]["genome"]
    )
    directory = made_up(run, tmp_path / "made")
    written = write_report([directory], directory)
    assert {"model_predictions", "model_genes", "model_slices"} <= written.keys()
    found = surrogate(gather([directory])[0])
    assert found is not None
    assert found.r2 > 0.8
    assert found.learnt.length_scales.argmin() == 0
    assert 0.6 < found.within <= 1
    assert found.expected is not None  # the best one is the last
    assert "the model expected" in written["report"].read_text()


def test_a_model_that_explains_nothing_is_not_shown(run: Path, tmp_path: Path):
    noise = np.random.default_rng(3).normal(size=40)
    directory = made_up(run, tmp_path / "noise", lambda _: noise)
    job = gather([directory])[0]
    found = surrogate(job)
    assert found is not None
    assert found.r2 < TRUSTED
    (said,) = surrogate_blocks(job)
    assert isinstance(said, str)
    assert "hardly better than its mean" in said


def test_where_the_search_began_anew_the_model_has_what_came_after(run: Path, tmp_path: Path):
    def notes(at: int) -> str | None:
        if at == 8:
            return "likelihood and metric: rank correlation 0.1: too low, the search begins anew by the metric"
        return BY_METRIC if at >= 12 else None

    found = surrogate(gather([made_up(run, tmp_path / "anew", notes=notes)])[0])
    assert found is not None
    assert [record.index for record in found.records] == list(range(12, 40))


def test_other_searches_have_none(run: Path, tmp_path: Path):
    directory = made_up(run, tmp_path / "few")
    write_lines(directory / "ledger.jsonl", json_lines(directory / "ledger.jsonl")[:10])
    assert surrogate(gather([directory])[0]) is None
    kept = json.loads((directory / "settings.json").read_text())
    kept["config"]["optimizer"]["_target_"] = "evohydra.searching.optimizers.cmaes.CMAES"
    (directory / "settings.json").write_text(json.dumps(kept))
    assert surrogate(gather([directory])[0]) is None
