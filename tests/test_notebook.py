"""docs/notebook.ipynb, cell by cell as it stands there."""

import ast
import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.commands import environment

NOTEBOOK = json.loads((Path(str(files("evohydra"))) / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def shown(cell: str, names: dict[str, Any]) -> Any:
    """What a notebook shows below a cell: the value of its last line, if that is an expression."""
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None


def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    values = [shown(cell, names) for cell in CELLS]
    run = names["run"]
    page = run._repr_html_()
    assert page.count("<tr>") == len(run.others) + 1
    assert 'src="data:image/png;base64,' in page
    assert f"<td>winner</td><td>{run.winner.score:.3f} ({run.winner.low:.3f} to {run.winner.high:.3f})</td>" in page
    assert run in values
    assert len(names["genomes"]) == 8
    assert names["made"].identical
    assert "答：" in names["answer"].replace(" ", "")
    assert names["answer"] in capsys.readouterr().out


def test_no_outputs_are_kept() -> None:
    """They would be those of another version."""
    assert all(not cell.get("outputs") for cell in NOTEBOOK["cells"])
