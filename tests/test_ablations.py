"""Ablations, and what a run keeps for readers of its report: examples with answers, and digests of its data."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from evohydra.recipe import Checkpoint
from evohydra.report.example_tables import _kept
from evohydra.report.examples import keep_examples
from evohydra.scoring.job import Evaluation
from tests.commands import carried_out, json_lines, workspace


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    root = tmp_path_factory.mktemp("kept")
    arguments = [*workspace(root), "start=[]", "budget=6", "top=1", "baselines=null", "ablate=groups"]
    carried_out(arguments, root / "run")
    return arguments, root / "run"


def test_what_the_winner_gains_from_each_group(run: tuple[list[str], Path]) -> None:
    kept = json.loads((run[1] / "ablations.json").read_text())
    summary = json.loads((run[1] / "summary.json").read_text())
    assert kept["recipe"] == summary["recipe_digest"]
    assert [each["name"] for each in kept["ablations"]] == ["embeddings", "layers.0", "layers.1", "head"]
    finals = {line["label"]: line for line in json_lines(run[1] / "scores.jsonl") if line["split"] == "validation"}
    for each in kept["ablations"]:
        changed = finals[f"ablation of {each['name']}"]["scores"]["lm_eval"]
        expected = summary["validation"]["winner"]["score"] - np.mean(changed)
        assert each["difference"] == pytest.approx(expected)
        assert each["low"] <= each["difference"] <= each["high"]


def test_ablations_of_genes_can_be_asked_for_later(run: tuple[list[str], Path]) -> None:
    arguments, directory = run
    before = (directory / "ledger.jsonl").read_bytes(), len(json_lines(directory / "scores.jsonl"))
    carried_out([*arguments, "ablate=genes"], directory)
    assert (directory / "ledger.jsonl").read_bytes() == before[0]
    assert len(json_lines(directory / "scores.jsonl")) == before[1] + 8
    names = [each["name"] for each in json.loads((directory / "ablations.json").read_text())["ablations"]]
    assert names[:2] == ["embeddings/weight/one", "embeddings/weight/two"]


@pytest.mark.parametrize(("option", "message"), [
    ("ablate=layers", "ablate: expected genes, groups or null, got 'layers'"),
    ("benchmark.lm_eval.splits.validation=null", "ablate=groups needs a validation split"),
])  # fmt: skip
def test_ablations_that_cannot_be(run: tuple[list[str], Path], option: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        carried_out([*run[0], option], tmp_path)


def test_examples_that_tell_winner_and_sources_apart(run: tuple[list[str], Path]) -> None:
    kept = json.loads((run[1] / "examples.json").read_text())["examples"]
    assert kept
    finals = {line["label"]: line["scores"]["lm_eval"] for line in json_lines(run[1] / "scores.jsonl")
              if line["split"] == "test"}  # fmt: skip
    questions = [json.loads(line) for line in (run[1].parent / "task" / "sums.jsonl").read_text().splitlines()]
    for each in kept:
        assert {model: finals[model][each["index"]] for model in ("one", "two", "winner")} == each["scores"]
        assert each["scores"]["winner"] > min(each["scores"][source] for source in ("one", "two"))
        assert {"question": each["question"], "answer": each["expected"]} in questions
        assert set(each["answers"]) == {"one", "two", "winner"}
    furthest = max(winner - source for winner, source in zip(finals["winner"], finals["one"], strict=True))
    assert max(each["scores"]["winner"] - each["scores"]["one"] for each in kept) == furthest


class Sums:
    """Ten questions that a model answers by its own name."""

    def size(self, split: str) -> int:
        return 10

    def describe(self, split: str, index: int) -> tuple[str, str]:
        return f"question {index}", "2"

    def answers(self, live: object, split: str, examples: Sequence[int]) -> list[str]:
        raise AssertionError("asked by `answers_of`")


def test_where_no_example_tells_them_apart_the_first_ones_are_kept(tmp_path: Path) -> None:
    models = {name: (Checkpoint(name, name), Evaluation({"sums": [0.0] * 10})) for name in ("one", "winner")}
    keep_examples(tmp_path / "examples.json", {"sums": Sums()}, models, lambda node, *_: [f" {node.name}"] * 4)
    kept = json.loads((tmp_path / "examples.json").read_text())["examples"]
    assert [each["index"] for each in kept] == [0, 1, 2, 3]
    assert kept[0]["answers"] == {"one": " one", "winner": " winner"}
    (table,) = _kept(kept)
    assert "above none on any example" in str(table)


def test_data_is_known_by_its_words(run: tuple[list[str], Path], tmp_path: Path) -> None:
    data = json.loads((run[1] / "summary.json").read_text())["data"]["lm_eval"]
    assert {split: each["examples"] for split, each in data.items()} == {"search": 24, "validation": 12, "test": 24}
    assert len({each["sha256"] for each in data.values()}) == 3
    rows = (run[1].parent / "task" / "sums.jsonl").read_text().replace('"answer": "3"', '"answer": "4"')
    (tmp_path / "changed.jsonl").write_text(rows)
    changed = [*run[0], f"benchmark.lm_eval.data_files={tmp_path / 'changed.jsonl'}", "ablate=null"]
    assert carried_out(changed, tmp_path / "run")["data"]["lm_eval"]["search"] != data["search"]
