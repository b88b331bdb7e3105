"""Every merge method on a real checkpoint: SmolLM2-135M-Instruct and two variants of it (see benchmarks/smollm2.py)."""

from pathlib import Path

import pytest

from tests.benchmarks import smollm2

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """The base and two variants; skips where package or network are missing."""
    try:
        return smollm2.prepare(tmp_path_factory.mktemp("smollm2"), None)
    except smollm2.Missing as missing:
        pytest.skip(str(missing))


def test_the_conversion_gives_a_model_that_answers(checkpoints: tuple[Path, list[Path]]):
    assert "Paris" in smollm2.answer(checkpoints[0])


@pytest.mark.parametrize("method", smollm2.methods())
def test_a_merge_loads_and_still_answers(method: str, checkpoints: tuple[Path, list[Path]], tmp_path: Path):
    """At a few layers where a whole merge takes minutes."""
    base, variants = checkpoints
    row = smollm2.check(method, base, variants, tmp_path / "merge", svd_layers=2)
    assert "Paris" in row.answer
    assert 0 < row.relative < 0.2
