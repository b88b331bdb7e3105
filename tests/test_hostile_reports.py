"""Reports of runs whose files somebody has edited: a page without foreign links, or one sentence."""

import json
import shutil
from pathlib import Path

import pytest

from tests.commands import carried_out, python, workspace


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    carried_out([*workspace(root), "budget=6", "top=1", "baselines=null", "report=false"], root / "run")
    return root / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize("key", ["question", "expected"])
@pytest.mark.parametrize("value", [{"path": "javascript:alert(1)", "text": "click"}, -1, None, ["x"]])
def test_examples_of_others_are_text(value: object, key: str, run: Path) -> None:
    content = json.loads((run / "examples.json").read_text())
    content["examples"][0][key] = value
    (run / "examples.json").write_text(json.dumps(content))
    made = python("-m", "evohydra.report", run, cwd=run.parent)
    assert made.returncode == 0, made.stderr
    page = (run / "report.html").read_text()
    assert 'href="javascript:' not in page
    assert isinstance(value, dict) == ("javascript:alert" in page)


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
    made = python("-m", "evohydra.report", run, cwd=run.parent)
    assert "Traceback" not in made.stderr
    assert made.returncode == 0 or made.stderr.startswith("evohydra: ")


def test_summaries_with_fields_of_other_types(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    for key in sorted(summary):
        for value in ("x", None, [], 10**400):
            (run / "summary.json").write_text(json.dumps({**summary, key: value}))
            made = python("-m", "evohydra.report", run, cwd=run.parent)
            assert "Traceback" not in made.stderr, (key, value)
            if key not in ("search", "test"):
                break
