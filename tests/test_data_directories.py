"""Data sets in directories of one's own are read as they are now, whatever the datasets library has kept of others."""

import json
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

from evohydra.scoring.benchmarks.lm_eval_loading import TASKS, load_tasks

README = "---\nconfigs:\n- {config_name: default, data_files: [{split: test, path: data.jsonl}]}\n---\n"
TASK = """
task: asked
dataset_path: somebody/questions
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
"""


def save(directory: Path, word: str) -> Path:
    """A copy of a data set's repository, whose README says which files it has."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "README.md").write_text(README)
    rows = [{"question": f"{word} {number}", "answer": "x"} for number in range(4)]
    (directory / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def test_of_lm_eval(tmp_path: Path) -> None:
    (tmp_path / "asked.yaml").write_text(TASK)
    for place, word in (("a", "first"), ("a", "second"), ("b", "third")):
        data = save(tmp_path / place / "questions", word)
        (task,) = load_tasks("asked", None, str(data), str(tmp_path)).tasks.values()
        assert [row["question"] for row in task.dataset["test"]] == [f"{word} {number}" for number in range(4)]


def test_of_tasks_in_a_group(tmp_path: Path) -> None:
    """Whose data are where their own files say."""
    for word in ("first", "second"):
        data = save(tmp_path / "questions", word)
        (tmp_path / "asked.yaml").write_text(TASK.replace("somebody/questions", str(data)))
        (tmp_path / "all.yaml").write_text("group: all\ntask: [asked]\n")
        (task,) = load_tasks("all", None, None, str(tmp_path)).tasks.values()
        assert [row["question"] for row in task.dataset["test"]] == [f"{word} {number}" for number in range(4)]


@pytest.mark.parametrize("name", ["tiny_gsm_ja", "tiny_gsm_en"])
def test_lm_evals_own_command_finds_our_data_from_anywhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `lm_eval --include_path .../tasks --tasks NAME` loads it; `metadata` are the command's own words."""
    monkeypatch.chdir(tmp_path)
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata={"pretrained": "some/model"})
    (task,) = manager.load([name])["tasks"].values()
    (ours,) = load_tasks(name, None, None, None).tasks.values()
    assert len(task.eval_docs) == len(ours.eval_docs) > 0
    assert task.doc_to_text(task.eval_docs[7]) == ours.doc_to_text(ours.eval_docs[7])


def test_other_data_for_a_task_that_finds_its_own(tmp_path: Path) -> None:
    """Files and directories that are given come before those that lie beside the task."""
    rows = [{"question": f"Q {number}", "answer": str(number)} for number in range(3)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (task,) = load_tasks("tiny_gsm_ja", str(tmp_path / "mine.jsonl"), None, None).tasks.values()
    assert [row["question"] for row in task.eval_docs] == ["Q 0", "Q 1", "Q 2"]
    data = save(tmp_path / "questions", "mine")
    (task,) = load_tasks("tiny_gsm_ja", None, str(data), None).tasks.values()
    assert [row["question"] for row in task.eval_docs] == [f"mine {number}" for number in range(4)]
