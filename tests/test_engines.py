"""A winner of the zoo in other engines: the same answers as in transformers, and the same log-probabilities.

    EVOHYDRA_VLLM_PYTHON=/path/to/python EVOHYDRA_ENGINES_PYTHON=/path/to/python pytest -m slow tests/test_engines.py

See docs/engines.md for the environments.
"""

import json
import os
from pathlib import Path

import pytest
import torch

from evohydra.merging.checkpoints import CheckpointReader
from tests.commands import REPOSITORY, carried_out
from tests.engines.comparison import Reference, compare

PYTHONS = {"vllm": "EVOHYDRA_VLLM_PYTHON"}
OTHERS = "EVOHYDRA_ENGINES_PYTHON"
PROBLEMS, TEST, TOKENS = 64, 500, 8
NEAR = 0.01  # of two logits: ten times the tolerance of a log-likelihood in float32, as in families/proof.py
ALLOWED = 1e-3


@pytest.fixture(scope="module")
def winner(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """A merge of the zoo as a run writes it, and test problems with their references."""
    run = tmp_path_factory.mktemp("zoo") / "run"
    weights = "{*/tiny_ja: 0.55, */tiny_math: 0.6}"
    arguments = ["model=tiny_ja+tiny_math", "benchmark=[]", f"merge.parameter.frozen={weights}", "tracker=none"]
    carried_out(arguments, run)
    lines = (REPOSITORY / "evohydra/scoring/benchmarks/tasks/tiny_gsm_ja" / "problems.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[TEST : TEST + PROBLEMS]]
    asked = [(f"問：{row['question']}答：", f"答えは{row['answer']}です。") for row in rows]
    return Reference(run / "winner", asked, TOKENS, PROBLEMS)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vllm", "ctranslate2", "llama.cpp"])
def test_a_winner_answers_the_same_in_other_engines(winner: Reference, engine: str, tmp_path: Path) -> None:
    python = os.environ.get(variable := PYTHONS.get(engine, OTHERS))
    if python is None:
        pytest.skip(f"needs a Python with {engine}: {variable}=/path/to/python")
    winner.ask(tmp_path)
    found = compare(engine, python, winner, tmp_path)
    assert found.answers == PROBLEMS
    assert found.equal >= 0.99 * PROBLEMS, found.differences
    assert all(abs(each.ours - each.theirs) < NEAR for each in found.differences), found.differences
    assert found.likely < ALLOWED
    assert found.split in (None, PROBLEMS)


@pytest.mark.slow
def test_another_model_is_found_out(winner: Reference, tmp_path: Path) -> None:
    """What the comparison is worth: a source in the place of the merge differs in answers and log-probabilities."""
    from evohydra.zoo import __file__ as zoo

    python = os.environ.get(OTHERS)
    if python is None:
        pytest.skip(f"needs a Python with CTranslate2: {OTHERS}=/path/to/python")
    winner.ask(tmp_path)
    source = Path(zoo).parent / "tiny_math"
    assert not all(
        torch.equal(CheckpointReader(source).read(name), CheckpointReader(winner.checkpoint).read(name))
        for name in CheckpointReader(source).shapes
    )
    found = compare("ctranslate2", python, winner, tmp_path, served=source)
    assert found.equal < found.answers
    assert found.likely > ALLOWED
    assert any(abs(each.ours - each.theirs) > NEAR for each in found.differences)
