"""Sources whose generation_config.json says other things: all are asked with that of one, and that is said."""

import json
from pathlib import Path
from typing import Any

import pytest

from evohydra.families import Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.checkpoints import SourceError
from evohydra.recipe import Checkpoint
from tests.test_settings_that_differ import with_settings


def opened(one: Path, two: Path, **said: Any) -> OpenSources:
    file = two / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **said}))
    return open_sources((Checkpoint("one", str(one)), Checkpoint("two", str(two))), None, CausalLM(), Rules())


@pytest.mark.parametrize(
    "said", [{"repetition_penalty": 1.05}, {"eos_token_id": [1, 5]}, {"suppress_tokens": [3]}, {"do_sample": True}]
)
def test_other_settings_are_said(said: dict[str, Any], trio: tuple[Path, ...], tmp_path: Path) -> None:
    """A repetition penalty of one of several sources was neither followed nor named."""
    _, one, two = trio
    sources = opened(one, with_settings(two, tmp_path / "two", {}), **said)
    (key,) = said
    (warning,) = (each for each in sources.warnings if "generates with" in each)
    assert f"source 'two' generates with {key} " in warning
    assert "where 'one' has" in warning


def test_a_file_that_is_none_is_named(trio: tuple[Path, ...], tmp_path: Path) -> None:
    _, one, two = trio
    other = with_settings(two, tmp_path / "two", {})
    opened(one, other, eos_token_id=[1, "x"])
    (other / "generation_config.json").write_text("[")
    with pytest.raises(SourceError, match=r"generation_config\.json"):
        open_sources((Checkpoint("one", str(one)), Checkpoint("two", str(other))), None, CausalLM(), Rules())


@pytest.mark.parametrize(
    "said",
    [{}, {"repetition_penalty": 1.0}, {"do_sample": False, "top_k": 50}, {"eos_token_id": [1]}, {"max_new_tokens": 9}],
)
def test_what_changes_no_answer_is_not_said(said: dict[str, Any], trio: tuple[Path, ...], tmp_path: Path) -> None:
    _, one, two = trio
    sources = opened(one, with_settings(two, tmp_path / "two", {}), **said)
    assert not [each for each in sources.warnings if "generates with" in each]
