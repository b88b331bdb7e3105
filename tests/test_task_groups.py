"""Groups of lm-eval tasks: how their tasks count is said where it is not as lm-eval has it."""

from pathlib import Path

import pytest

from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.lm_eval import lm_eval_benchmarks
from tests import tiny_models

SPLITS = {split: {"start": start, "stop": stop} for split, start, stop in [("search", 0, 0.5), ("test", 0.5, None)]}


@pytest.mark.parametrize(
    ("rule", "sizes", "said"),
    [
        ("[{metric: exact, weight_by_size: true}]", (20, 60), True),
        ("[{metric: exact}]", (20, 60), True),  # lm-eval's default
        ("[{metric: exact}]", (20, 20), False),
        ("[{metric: exact, weight_by_size: false}]", (20, 60), False),
        ("[]", (20, 60), False),  # a group without a score of its own
        ("{metric: exact, weight_by_size: true}", (20, 60), True),
        ("{metric: exact, weight_by_size: false}", (20, 60), False),
    ],
)
def test_tasks_that_lm_eval_weights_by_size(
    rule: str, sizes: tuple[int, int], said: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_models.save_task(tmp_path)
    text, rows = (tmp_path / "sums.yaml").read_text(), (tmp_path / "sums.jsonl").read_text().splitlines(keepends=True)
    for name, size in zip(("few", "many"), sizes, strict=True):
        (tmp_path / f"{name}.yaml").write_text(text.replace("sums", name))
        (tmp_path / f"{name}.jsonl").write_text("".join(rows[:size]))
    (tmp_path / "both.yaml").write_text(f"group: both\ntask: [few, many]\naggregate_metric_list: {rule}\n")
    options = {"include_path": str(tmp_path), "metric": "exact"}
    made = lm_eval_benchmarks("b", task="both", splits={**SPLITS, "validation": None}, **options)
    assert sorted(made) == ["b/few", "b/many"]
    assert [record.message for record in caplog.records] == said * [
        "benchmark 'b': its 2 tasks count the same in the search and in the winner's score. lm-eval weights the tasks "
        "of this group by their numbers of examples; for that give objective=weighted and "
        "'objective.weights={b/few: 0.25, b/many: 0.75}'"
    ]


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Two tasks of 20 and 60 examples."""
    tiny_models.save_task(tmp_path)
    text, rows = (tmp_path / "sums.yaml").read_text(), (tmp_path / "sums.jsonl").read_text().splitlines(keepends=True)
    for name, size in [("few", 20), ("many", 60)]:
        (tmp_path / f"{name}.yaml").write_text(text.replace("sums", name))
        (tmp_path / f"{name}.jsonl").write_text("".join(rows[:size]))
    return tmp_path


@pytest.mark.parametrize(
    "inner", ["inner", "{group: inner, task: [few, many], aggregate_metric_list: [{metric: exact}]}"]
)
def test_groups_in_groups(inner: str, tasks: Path, caplog: pytest.LogCaptureFixture) -> None:
    if inner == "inner":
        (tasks / "inner.yaml").write_text("group: inner\ntask: [few, many]\naggregate_metric_list: [{metric: exact}]\n")
    (tasks / "outer.yaml").write_text(f"group: outer\ntask: [sums, {inner}]\n")
    options = {"include_path": str(tasks), "metric": "exact", "splits": {**SPLITS, "validation": None}}
    assert sorted(lm_eval_benchmarks("b", task="outer", **options)) == ["b/few", "b/many", "b/sums"]
    assert ["its 3 tasks count the same" in record.message for record in caplog.records] == [True]


def test_groups_in_a_circle(tasks: Path) -> None:
    for name, other in [("one", "other"), ("other", "one")]:
        (tasks / f"{name}.yaml").write_text(f"group: {name}\ntask: [few, {other}]\n")
    options = {"include_path": str(tasks), "metric": "exact", "splits": {**SPLITS, "validation": None}}
    with pytest.raises(BenchmarkError, match="group 'one' is a member of itself: one > other > one"):
        lm_eval_benchmarks("b", task="one", **options)
