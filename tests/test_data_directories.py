"""Data sets in directories of one's own are read as they are now, whatever the datasets library has kept of others."""

import json
from pathlib import Path

from evohydra.scoring.benchmarks.lm_eval_loading import load_tasks

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
