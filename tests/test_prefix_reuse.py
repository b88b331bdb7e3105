"""Searches for paths that keep what the genomes of a generation share: the same ledger, with less work."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evohydra.families.causal_lm import CausalLM
from evohydra.recipe import Node, Stack, digest
from evohydra.scoring.worker import Worker
from tests.commands import built, carried_out, json_lines, workspace

SCORES = ("index", "genome", "recipe", "fitness", "scores", "error")
live_model = CausalLM.live_model


def keeping(monkeypatch: pytest.MonkeyPatch, limit: int) -> list[Any]:
    """From now on live models keep `limit` bytes; those that are made are in the list."""
    made: list[Any] = []

    def make(*arguments: Any, **options: Any) -> Any:
        made.append(live_model(*arguments, **{**options, "prefix_bytes": limit}))
        return made[-1]

    monkeypatch.setattr(CausalLM, "live_model", make)
    return made


def ledger(directory: Path) -> list[dict[str, Any]]:
    return [{key: line[key] for key in SCORES} for line in json_lines(directory / "ledger.jsonl")]


@pytest.mark.parametrize("merge", ["dfs_none", "dfs_slot", "ties+dfs_none"])
def test_a_search_gives_the_same_ledger(tmp_path: Path, merge: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [*workspace(tmp_path, num_hidden_layers=3), f"merge={merge}", "budget=12", "top=1", "baselines=null"]
    carried_out(arguments, tmp_path / "without")
    made = keeping(monkeypatch, 10**8)
    carried_out(arguments, tmp_path / "with")
    assert ledger(tmp_path / "with") == ledger(tmp_path / "without")
    assert all(line["error"] is None for line in ledger(tmp_path / "with"))
    prefixes = made[0].paths.prefixes
    if merge == "dfs_none":
        assert prefixes.reused > 0.05 * prefixes.computed


def test_a_generation_is_announced_but_for_what_is_on_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [*workspace(tmp_path), "merge=dfs_none", "top=1", "baselines=null"]
    carried_out([*arguments, "budget=8"], tmp_path / "run")  # a generation of 6, and 2 of the next
    run = built([*arguments, "budget=18"], tmp_path / "run")
    told: list[Sequence[Node]] = []
    monkeypatch.setattr(Worker, "expect", lambda _, recipes: told.append(recipes))
    run(Console(file=io.StringIO()))
    lines = json_lines(tmp_path / "run" / "ledger.jsonl")
    fresh = [line["recipe"] for line in lines[8:] if line["scored"]]
    announced = [recipe for recipes in told for recipe in recipes]  # behind the search what is scored on other splits
    assert [digest(recipe) for recipe in announced[: len(fresh)]] == fresh != []
    assert all(isinstance(recipe, Stack) for recipe in announced[: len(fresh)])
