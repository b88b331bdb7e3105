"""Warm starts: the best genomes of an earlier run are in generation 0, where they mean the same, and only then."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evohydra.searching.warm_start import best_genomes
from tests.commands import built, carried_out, json_lines, workspace, write_lines
from tests.test_parameter_space import space


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A command line, and the run that it began."""
    root = tmp_path_factory.mktemp("warm")
    arguments = [*workspace(root), "budget=12", "top=1", "baselines=null"]
    carried_out([*arguments, "optimizer=random", "start=[]"], root / "earlier")
    return arguments, root / "earlier"


@pytest.mark.parametrize("optimizer", ["cmaes", "de", "m2n2"])
def test_the_best_genomes_are_in_generation_0(earlier: tuple[list[str], Path], optimizer: str, tmp_path: Path) -> None:
    arguments, directory = earlier
    best = sorted(json_lines(directory / "ledger.jsonl"), key=lambda line: (-line["fitness"], line["index"]))[:2]
    changes = [f"optimizer={optimizer}", "optimizer.population=6", f"warm_start={directory}", "warm_start_top=2"]
    carried_out([*arguments, *changes], tmp_path / "run")
    first = [line for line in json_lines(tmp_path / "run" / "ledger.jsonl") if line["generation"] == 0]
    for line in best:
        (again,) = [other for other in first if np.allclose(other["genome"], line["genome"], rtol=0, atol=1e-12)]
        assert again["fitness"] == line["fitness"]
        assert again["recipe"] == line["recipe"]
    ledger = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    carried_out([*arguments, *changes], tmp_path / "run")  # resumes
    assert (tmp_path / "run" / "ledger.jsonl").read_bytes() == ledger


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            "merge.parameter.genes.weight.high=3.0",
            "same ranges: .*/weight/.* was .* there, and would be .* here",
        ),
        (
            "merge.parameter.granularity.modules=true",
            "coordinates, got .*; there, but not here: .*; here, but",
        ),
        ("merge=ties", "has other genes than this run"),
        ("warm_start_top=0", "warm_start_top: expected a whole number of at least 1, got 0"),
        ("warm_start=nowhere", "expected the directory of a run, got nowhere, which has no ledger.jsonl"),
    ],
)
def test_other_genes_are_an_error(earlier: tuple[list[str], Path], change: str, expected: str, tmp_path: Path) -> None:
    arguments, directory = earlier
    with pytest.raises(ValueError, match=expected):
        built([*arguments, f"warm_start={directory}", change], tmp_path / "run")


def test_a_change_of_the_earlier_run_is_noticed(earlier: tuple[list[str], Path], tmp_path: Path) -> None:
    arguments, directory = earlier
    copy = tmp_path / "earlier"
    copy.mkdir()
    lines = (directory / "ledger.jsonl").read_text().splitlines()
    (copy / "ledger.jsonl").write_text("\n".join(lines[:6]) + "\n" + lines[6][:40])  # torn: the run goes on
    carried_out([*arguments, f"warm_start={copy}"], tmp_path / "run")
    (copy / "ledger.jsonl").write_text("\n".join(lines[:7]).replace('"fitness": ', '"fitness": 9', 1) + "\n")
    with pytest.raises(ValueError, match=r"ledger.jsonl: line 1 is damaged \(its check sum does not fit"):
        carried_out([*arguments, f"warm_start={copy}"], tmp_path / "run")
    entries = json_lines(directory / "ledger.jsonl")
    write_lines(copy / "ledger.jsonl", [*entries[:6], entries[6] | {"fitness": 9.0}])
    with pytest.raises(ValueError, match=r"another configuration or other data \(warm_start\.genomes has changed"):
        carried_out([*arguments, f"warm_start={copy}"], tmp_path / "run")


def test_other_splits_are_a_warning(
    earlier: tuple[list[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments, directory = earlier
    with caplog.at_level(logging.WARNING, "evohydra.searching.warm_start"):
        built([*arguments, f"warm_start={directory}"], tmp_path / "run")
        assert not caplog.records
        built([*arguments, f"warm_start={directory}", "benchmark.lm_eval.splits.test.stop=0.9"], tmp_path / "run")
    assert "none of its search examples is in a validation or test split" in caplog.text


def test_genomes_by_the_metric_come_before_those_by_log_likelihoods(tmp_path: Path) -> None:
    """Whatever their fitness: where a search has gone over to the metric, log-likelihoods may have misled it."""

    class Plain:
        names = ("x",)

        def values(self, x: Any) -> dict[str, float]:
            return {"x": float(x[0])}

    kinds = (("log-likelihood per token of a", -0.1), ("a", -0.9), ("a", -0.4), ("log-likelihood per token of a", -0.2))
    write_lines(tmp_path / "ledger.jsonl", [
        {"index": at, "genome": [at / 10], "genes": {"x": at / 10}, "recipe": str(at), "fitness": fitness,
         "scores": {name: [fitness]}} for at, (name, fitness) in enumerate(kinds)
    ])  # fmt: skip
    plain: Any = Plain()
    assert best_genomes(tmp_path, plain, 3)[:, 0].tolist() == [0.2, 0.1, 0.0]


def test_a_ledger_without_scores_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text(json.dumps({"fitness": None}) + "\n")
    with pytest.raises(ValueError, match="has no genome with a score"):
        best_genomes(tmp_path, space(), 3)
