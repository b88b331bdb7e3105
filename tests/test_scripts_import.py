"""Scripts that no test runs (measurements, checks on GPUs) still find what they import from this repository."""

import ast
import importlib
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPTS = sorted([*(HERE / "benchmarks").rglob("*.py"), *(HERE / "gpu").rglob("*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.relative_to(HERE)))
def test_a_script_finds_what_it_imports(script: Path) -> None:
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.module or not node.module.startswith("evohydra"):
            continue
        module = importlib.import_module(node.module)
        for name in (each.name for each in node.names):
            assert hasattr(module, name) or importlib.util.find_spec(f"{node.module}.{name}"), (node.lineno, name)
