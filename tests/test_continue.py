"""Searches whose sources are winners of earlier ones, as recipes (continue)."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict
from safetensors.torch import load_file

from evohydra.assembly import composition
from evohydra.rebuild import make
from evohydra.recipe import Merge, from_dict
from tests.commands import carried_out, json_lines, workspace

SHORT = ["budget=6", "top=1", "baselines=null", "audit=none"]


def with_hydras_files(arguments: list[str], directory: Path) -> Any:
    """Carry out a run in this process, with the files beside it that Hydra writes for a command."""
    composition.register()
    with initialize_config_dir(composition.conf_dir(), version_base="1.3"):
        config = compose("config", overrides=arguments, return_hydra_config=True)
    with open_dict(config):
        del config["hydra"]
    (directory / ".hydra").mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, directory / ".hydra" / "config.yaml")
    runtime = {"hydra": {"runtime": {"cwd": str(Path.cwd())}}}
    (directory / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(runtime))
    (directory / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(arguments))
    return carried_out(arguments, directory)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Two runs over the same models by different methods, one with random masks; and a command line like theirs."""
    root = tmp_path_factory.mktemp("continued")
    arguments = [*workspace(root), *SHORT]
    with_hydras_files([*arguments, "merge=dare_ties"], root / "first")
    with_hydras_files([*arguments, "merge=linear", "seed=2"], root / "second")
    return root, arguments


def following(root: Path, arguments: list[str], *more: str) -> list[str]:
    own = [text for text in arguments if not text.startswith("model")]
    return [*own, f"continue={root / 'first'}+{root / 'second'}", *more]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


@pytest.mark.parametrize("merge", ["dare_ties", "slerp"])
def test_winners_are_merged_as_recipes(merge: str, begun: tuple[Path, list[str]], tmp_path: Path) -> None:
    root, arguments = begun
    summary = with_hydras_files([*following(root, arguments), f"merge={merge}"], tmp_path / "third")
    content = json.loads((tmp_path / "third" / "recipe.json").read_text())
    recipe = from_dict(content["recipe"])
    assert isinstance(recipe, Merge)
    before = [json.loads((root / name / "recipe.json").read_text())["recipe"] for name in ("first", "second")]
    assert [model.to_dict() for model in recipe.models] == before
    assert content["made_from"] == {}  # it begins with the original sources
    assert list(summary["test"]["sources"]) == ["first", "second", "one", "two"]
    # In a place where the earlier runs are not, from the original sources alone, bit for bit.
    moved = {name: str(shutil.copytree(root / name, tmp_path / "moved" / name)) for name in ("one", "two", "base")}
    made = make(tmp_path / "third" / "recipe.json", tmp_path / "again", moved)
    assert made.identical is True
    genes = json_lines(tmp_path / "third" / "ledger.jsonl")[0]["genes"]
    assert any("first" in name for name in genes) == (merge == "dare_ties")
    assert (
        carried_out([*following(root, arguments), f"merge={merge}"], tmp_path / "third")["recipe_digest"]
        == (summary["recipe_digest"])
    )


def test_a_source_alone_is_the_earlier_winner(begun: tuple[Path, list[str]], tmp_path: Path) -> None:
    """What a search over recipes scores for one of them alone is what the earlier winner scored, bit for bit."""
    root, arguments = begun
    summary = with_hydras_files([*following(root, arguments), "merge=linear"], tmp_path / "third")
    for name in ("first", "second"):
        earlier = json.loads((root / name / "summary.json").read_text())["test"]["winner"]
        assert summary["test"]["sources"][name]["score"] == earlier["score"]
