"""Whole runs with several objectives, weights, and baselines that end."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from evohydra.report.front_table import front_rows, front_table
from evohydra.report.tables import summary_table
from tests.commands import built, carried_out, json_lines, workspace


@pytest.fixture(scope="module")
def leaning(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line of a run on two benchmarks of which one likes what the other does not."""
    root = tmp_path_factory.mktemp("objectives")
    arguments = [each for each in workspace(root) if "benchmark" not in each and "population" not in each]
    (group := root / "conf" / "benchmark").mkdir()
    for name, sign in (("up", 1.0), ("down", -2.0)):
        (group / f"{name}.yaml").write_text(
            f"# @package benchmark.{name}\n_target_: tests.fakes.leaning\n_partial_: true\nsign: {sign}\n"
        )
    return [*arguments, "benchmark=[up,down]", "baselines=null", "top=3"]


@pytest.mark.parametrize("optimizer", ["nsga2", "map_elites"])
def test_each_benchmark_is_an_objective(leaning: list[str], optimizer: str, tmp_path: Path) -> None:
    changes = [f"optimizer={optimizer}", "optimizer.population=6", "objective=each", "pick=knee", "budget=12"]
    summary = carried_out([*leaning, *changes], tmp_path / "run")
    lines = json_lines(tmp_path / "run" / "ledger.jsonl")
    for line in lines:
        assert line["objectives"] == {name: pytest.approx(np.mean(line["scores"][name])) for name in ("up", "down")}
    front = summary["search"]["front"]
    assert len(front) == len(lines)  # what one gains the other loses
    assert {"index", "up", "down"} == set(front[0])
    assert summary["search"]["index"] in [each["index"] for each in front]
    picks = summary["search"]["picks"]
    assert picks.keys() == {"fitness", "ideal", "knee"}
    assert lines[picks["fitness"]]["fitness"] == max(line["fitness"] for line in lines)
    split, heads, rows = front_rows(summary) or ("", (), [])
    assert (split, heads, len(rows)) == ("search", ("genome", "up", "down", "picked by"), len(front))
    assert {row[0] for row in rows if "pick=knee" in row[-1]} == {str(picks["knee"])}
    assert {row[0] for row in rows if "winner" in row[-1]} == {str(summary["search"]["index"])}
    table, line = front_table(summary)
    assert (table.row_count, line) == (len(front), "The winner was chosen on validation.")
    before = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    again = carried_out([*leaning, *changes], tmp_path / "run")
    assert again["recipe_digest"] == summary["recipe_digest"]
    assert (tmp_path / "run" / "ledger.jsonl").read_bytes() == before


def test_generations_on_different_examples_have_no_common_front(leaning: list[str], tmp_path: Path) -> None:
    """The front is that of the candidates, on the validation split, where all are scored on the same examples."""
    changes = ["optimizer=nsga2", "optimizer.population=6", "objective=each", "pick=knee", "budget=12", "top=2"]
    run = tmp_path / "run"
    summary = carried_out([*leaning, *changes, "fitness=subset", "fitness.examples=2", "report=true"], run)
    assert "front" not in summary["search"]
    front = summary["validation"]["front"]
    on_validation = {
        tuple(np.mean(line["scores"][name]) for name in ("up", "down"))
        for line in json_lines(run / "scores.jsonl")
        if line["split"] == "validation"
    }
    assert {(each["up"], each["down"]) for each in front} <= on_validation
    candidates = [each["index"] for each in summary["validation"]["candidates"]]
    assert (front_rows(summary) or [""])[0] == "validation"
    assert set(summary["validation"]["picks"].values()) <= set(candidates)
    assert {each["index"] for each in front} == set(candidates)  # what one gains the other loses
    assert {index // 6 for index in candidates} == {0, 1}  # of both generations
    page = (run / "report.html").read_text()
    assert "those of its generation, which were scored on the same examples" in page
    # Whatever the fitness is made of, each model's score on each benchmark is told.
    assert "Mean scores of each benchmark on the test split." in page
    console = Console(file=io.StringIO(), width=200)
    console.print(summary_table(json.loads((run / "summary.json").read_text()), "up, down"))
    shown = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    card = (run / "winner" / "README.md").read_text().splitlines()
    for name, score in {"source one": summary["test"]["sources"]["one"], "winner": summary["test"]["winner"]}.items():
        numbers = [f"{score['benchmarks'][each]:.3f}" for each in ("up", "down")]
        assert any(line.replace("│", " ").split()[-2:] == numbers for line in shown if name in line)
        assert any(line.endswith(f"| {' | '.join(numbers)} |") for line in card if line.startswith(f"| {name} |"))


def test_weights_decide_what_wins(leaning: list[str], tmp_path: Path) -> None:
    best = {}
    for name, weights in (("up", "{up: 1.0, down: 0.1}"), ("down", "{up: 0.1, down: 1.0}")):
        changes = ["optimizer=random", "budget=16", "objective=weighted", f"objective.weights={weights}"]
        summary = carried_out([*leaning, *changes], tmp_path / name)
        lines = json_lines(tmp_path / name / "ledger.jsonl")
        means = np.array([[np.mean(line["scores"][each]) for each in ("up", "down")] for line in lines])
        shares = np.array([1.0, 0.1] if name == "up" else [0.1, 1.0])
        np.testing.assert_allclose([line["fitness"] for line in lines], means @ shares)
        assert "objectives" not in lines[0] or lines[0]["objectives"] == {}
        winner = summary["test"]["winner"]
        assert winner["score"] == pytest.approx(shares @ [winner["benchmarks"]["up"], winner["benchmarks"]["down"]])
        best[name] = summary["search"]["index"]
    assert best["up"] != best["down"]


def test_weights_are_checked_before_anything_is_evaluated(leaning: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"objective\.weights: expected a number for each of \['down', 'up'\], got"):
        built([*leaning, "objective=weighted", "objective.weights={up: 1.0}"], tmp_path / "run")
    with pytest.raises(ValueError, match=r"expected a number for each of \['down', 'up'\], got \{\}"):
        built([*leaning, "objective=weighted"], tmp_path / "run")
    with pytest.raises(ValueError, match="objective=path_length: only paths have a length"):
        built([*leaning, "objective=path_length"], tmp_path / "run")


def test_score_against_path_length(tmp_path: Path) -> None:
    changes = ["merge=dfs", "optimizer=nsga2", "objective=path_length", "pick=ideal", "budget=12", "baselines=null"]
    changes.append("report=true")
    summary = carried_out([*workspace(tmp_path), *changes], tmp_path / "run")
    lines = json_lines(tmp_path / "run" / "ledger.jsonl")
    assert all(line["objectives"]["score"] == line["fitness"] for line in lines)
    hops = {line["objectives"]["-hops"] for line in lines}
    assert len(hops) > 1
    assert max(hops) <= -1
    front = {each["index"] for each in summary["search"]["front"]}
    shortest = max(hops)
    best = max(line["fitness"] for line in lines if line["objectives"]["-hops"] == shortest)
    assert {
        line["index"] for line in lines if (line["fitness"], line["objectives"]["-hops"]) == (best, shortest)
    } <= front
    assert (tmp_path / "run" / "figures" / "front.png").exists()


@pytest.mark.parametrize(("optimizer", "evaluations"), [("soup", 3 + 1), ("line", 3 + 8)])
def test_baselines_end_before_the_budget(leaning: list[str], optimizer: str, evaluations: int, tmp_path: Path) -> None:
    """Two sources and the uniform merge, then a soup of two, or the eight points between the three on the line."""
    changes = [f"optimizer={optimizer}", "budget=100", "benchmark=[up]"]
    summary = carried_out([*leaning, *changes], tmp_path / "run")
    assert summary["evaluations"] == len(json_lines(tmp_path / "run" / "ledger.jsonl")) == evaluations
    assert summary["search"]["best"] == max(line["fitness"] for line in json_lines(tmp_path / "run" / "ledger.jsonl"))


def test_a_grid_larger_than_the_budget_says_what_to_do(leaning: list[str], tmp_path: Path) -> None:
    changes = ["optimizer=grid", "merge.parameter.granularity.layers=whole", "merge.parameter.granularity.edges=false"]
    expected = (
        r"budget=20 is smaller than the first generation of \d+ genomes; .*optimizer\.points, or .*optimizer=line"
    )
    with pytest.raises(ValueError, match=expected):
        carried_out([*leaning, *changes, "budget=20"], tmp_path / "run")
