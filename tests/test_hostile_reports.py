"""Reports of runs whose files somebody has edited: a page without foreign links, or one sentence.

Most ask the command's `main` in this process. One file and one summary are for a process of their own.
"""

import json
import shutil
from pathlib import Path

import pytest

from evohydra.report.__main__ import main
from tests.commands import carried_out, python, workspace


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    carried_out([*workspace(root), "budget=6", "top=1", "baselines=null", "audit=all"], root / "run")
    return root / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def refused(run: Path) -> object:
    """What the command ends with, None where it writes a report; every other error is raised."""
    try:
        main([str(run)])
    except SystemExit as ending:
        return ending.code
    return None


@pytest.mark.parametrize("value", [{"path": "javascript:alert(1)", "text": "click"}, -1, None, ["x"]])
def test_examples_of_others_are_text(value: object, run: Path) -> None:
    """An example with it as its question, and another one with it as what is expected."""
    content = json.loads((run / "examples.json").read_text())
    content["examples"][0]["question"] = value
    content["examples"][1]["expected"] = value
    (run / "examples.json").write_text(json.dumps(content))
    assert refused(run) is None
    page = (run / "report.html").read_text()
    assert 'href="javascript:' not in page
    assert page.count("javascript:alert") == (2 if isinstance(value, dict) else 0)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("summary.json", "{}"),
        ("ledger.jsonl", ""),
        ("ledger.jsonl", "{}\n"),
        ("scores.jsonl", "{}\n"),
        ("examples.json", '{"recipe": 1, "examples": 3}'),
    ],
)
def test_files_that_no_run_writes_are_a_sentence(file: str, content: str, run: Path) -> None:
    (run / file).write_text(content)
    told = refused(run)
    assert told is None or str(told).startswith("evohydra: ")


def test_the_sentence_is_that_of_the_command(run: Path) -> None:
    (run / "summary.json").write_text("{}")
    made = python("-m", "evohydra.report", run, cwd=run.parent)
    assert "Traceback" not in made.stderr
    assert made.stderr.startswith("evohydra: ")
    assert made.returncode == 1


def test_summaries_with_fields_of_other_types(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    for key in sorted(summary):
        for value in ("x", None, [], 10**400):
            (run / "summary.json").write_text(json.dumps({**summary, key: value}))
            told = refused(run)
            assert told is None or str(told).startswith("evohydra: "), (key, value)
            if key not in ("search", "test"):
                break
