"""Winners in other engines: the same answers as in transformers, and the same log-probabilities.

    EVOHYDRA_VLLM_PYTHON=/path/to/python EVOHYDRA_ENGINES_PYTHON=/path/to/python pytest -m slow tests/test_engines.py

See docs/engines.md for the environments. SmolLM2 needs the package gguf beside, and a package index.
"""

import os
from pathlib import Path

import pytest
import torch

from evohydra.merging.checkpoints import CheckpointReader
from tests.benchmarks.smollm2 import Missing
from tests.engines.comparison import compare, table
from tests.engines.winners import WINNERS, Winner

PYTHONS = {"vllm": "EVOHYDRA_VLLM_PYTHON"}
OTHERS = "EVOHYDRA_ENGINES_PYTHON"
NEAR = 0.01  # of two logits: ten times the tolerance of a log-likelihood in float32, as in families/proof.py
ALLOWED = 1e-3


@pytest.fixture(scope="module", params=list(WINNERS))
def winner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Winner:
    """A merge as a run writes it with problems, and one of its sources."""
    try:
        return WINNERS[request.param](tmp_path_factory.mktemp("winner"))
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vllm", "ctranslate2", "llama.cpp"])
def test_a_winner_answers_the_same_in_other_engines(winner: Winner, engine: str, tmp_path: Path) -> None:
    python = os.environ.get(variable := PYTHONS.get(engine, OTHERS))
    if python is None:
        pytest.skip(f"needs a Python with {engine}: {variable}=/path/to/python")
    reference, _ = winner
    reference.ask(tmp_path)
    found = compare(engine, python, reference, tmp_path)
    print(table([found]))  # pytest -s: the row of docs/engines.md
    assert found.answers == len(reference.questions["prompts"])
    assert found.equal >= 0.99 * found.answers, found.differences
    assert all(abs(each.ours - each.theirs) < NEAR for each in found.differences), found.differences
    assert found.likely < ALLOWED
    assert found.split in (None, found.texts)


@pytest.mark.slow
def test_another_model_is_found_out(winner: Winner, tmp_path: Path) -> None:
    """What the comparison is worth: a source in the place of the merge differs in answers and log-probabilities."""
    python = os.environ.get(OTHERS)
    if python is None:
        pytest.skip(f"needs a Python with CTranslate2: {OTHERS}=/path/to/python")
    reference, source = winner
    reference.ask(tmp_path)
    assert not all(
        torch.equal(CheckpointReader(source).read(name), CheckpointReader(reference.checkpoint).read(name))
        for name in CheckpointReader(source).shapes
    )
    found = compare("ctranslate2", python, reference, tmp_path, served=source)
    assert found.equal < found.answers
    assert found.likely > ALLOWED
    assert any(abs(each.ours - each.theirs) > NEAR for each in found.differences)
