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
from evohydra.assembly.continuing import Continued, Earlier, continued, over
from evohydra.families import Rules
from evohydra.merging.checkpoints import SourceError
from evohydra.rebuild import make
from evohydra.recipe import Checkpoint, Group, Hop, LayerNames, Merge, Node, Stack, from_dict
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


def test_linear_merges_of_linear_merges_are_one_merge(begun: tuple[Path, list[str]], tmp_path: Path) -> None:
    """The first source is by another method, and stays one of the models; the second one's models take its place."""
    root, arguments = begun
    command = [*following(root, arguments), "merge=linear"]
    with_hydras_files(command, tmp_path / "third")
    files = [directory / "recipe.json" for directory in (root / "first", root / "second", tmp_path / "third")]
    first, second, recipe = [from_dict(json.loads(file.read_text())["recipe"]) for file in files]
    assert isinstance(recipe, Merge)
    assert isinstance(second, Merge)
    assert recipe.models == (first, *second.models)
    assert "linear_merges" in json.loads((tmp_path / "third" / "run.json").read_text())["search"]
    assert make(tmp_path / "third" / "recipe.json", tmp_path / "again", {}).identical is True


def test_runs_of_earlier_versions_go_on_with_trees(
    begun: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, arguments = begun
    command, run = [*following(root, arguments), "merge=linear"], tmp_path / "third"
    with monkeypatch.context() as earlier:
        earlier.setattr("evohydra.assembly.runs.collapses", lambda _: False)
        summary = with_hydras_files(command, run)
    known = json.loads((run / "run.json").read_text())
    assert known["search"].pop("linear_merges") is None  # earlier versions do not have it at all
    (run / "run.json").write_text(json.dumps(known))
    recipe = from_dict(json.loads((run / "recipe.json").read_text())["recipe"])
    assert isinstance(recipe, Merge)
    before = [json.loads((root / name / "recipe.json").read_text())["recipe"] for name in ("first", "second")]
    assert [model.to_dict() for model in recipe.models] == before
    ledger, scores = (json_lines(run / name) for name in ("ledger.jsonl", "scores.jsonl"))
    again = with_hydras_files(command, run)
    assert again["recipe_digest"] == summary["recipe_digest"]
    assert (json_lines(run / "ledger.jsonl"), json_lines(run / "scores.jsonl")) == (ledger, scores)
    made = make(run / "recipe.json", tmp_path / "again", {})
    assert made.identical is True


def changed_run(root: Path, name: str, recipe: dict[str, object] | None = None, **config: object) -> str:
    """A copy of the first run called `name`, whose recipe and configuration say something else."""
    copy = root / "copies" / name
    shutil.copytree(root / "first", copy, dirs_exist_ok=True)
    content = json.loads((copy / "recipe.json").read_text())
    (copy / "recipe.json").write_text(json.dumps({**content, **(recipe or {})}))
    file = copy / ".hydra" / "config.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **config}))
    return str(copy)


def test_models_are_those_of_the_runs_and_those_that_are_named(begun: tuple[Path, list[str]]) -> None:
    root, arguments = begun
    named = {"three": {"path": "three", "family": "x"}}
    plain = {**composition.composed(arguments), "continue": str(root / "first"), "model": {"sources": named}}
    made, found = continued(plain, ["merge=ties"])
    assert list(made["model"]["sources"]) == ["one", "two"]
    assert ([each.name for each in found.earlier], found.beside) == (["first"], ())
    made, found = continued(plain, ["merge=ties", "model=three"])
    assert list(made["model"]["sources"]) == ["one", "two", "three"]
    assert found.beside == ("three",)
    assert continued({**plain, "continue": None}) == ({**plain, "continue": None}, Continued())


def test_runs_that_cannot_be_continued_are_told(begun: tuple[Path, list[str]]) -> None:
    root, arguments = begun
    first = str(root / "first")
    path = Stack((Checkpoint("one", "one"),), (Hop(0, 0),), LayerNames("layers", "e", "a", "m")).to_dict()
    other_model = {"model": {"sources": {"one": {"path": "elsewhere"}}}}
    cases: list[tuple[object, list[str], str]] = [
        (str(root / "none"), [], "expected the directory of a run that has ended, .*none, which has no recipe.json"),
        (7, [], "continue: expected directories of runs, such as outputs/A"),
        ("+", [], "continue: expected directories of runs"),
        (f"{first}+{first}", [], "got 'first' twice"),
        (changed_run(root, "one"), [], "got 'one' twice, or as the name of a source"),
        (changed_run(root, "cut", {"out_dtype": "bfloat16"}), [], "merged in float32 and wrote bfloat16"),
        (changed_run(root, "path", {"recipe": path, "files_from": "one"}), [], "found a path through layers"),
        (changed_run(root, "moe", {"experts_per_token": 2}), [], "moe found a mixture of experts"),
        (f"{first}+{changed_run(root, 'b', tokenizer='union')}", [], "with the same tokenizer, got 'auto' .* 'union'"),
        (f"{first}+{changed_run(root, 'c', **other_model)}", [], "source 'one' is another one than in an earlier run"),
        (first, ["model.sources.one.path=here"], "model.sources.one.path: the sources of continue are as the"),
        (first, ["experiment=tiny_dfs"], "experiment: its models and types would not be used beside continue"),
        (first, ["++dtype=bfloat16"], "dtype=bfloat16: expected 'auto', as the runs to continue have it"),
        (first, ["tokenizer=union"], "tokenizer=union: expected 'auto', as the runs to continue have it"),
    ]
    for named, given, message in cases:
        plain = {**composition.composed([*arguments, *given]), "continue": named}
        with pytest.raises(ValueError, match=message):
            continued(plain, given)


def test_recipes_hold_over_their_own_sources_only() -> None:
    now = Checkpoint("one", "here", fingerprint="abc")
    was = Checkpoint("one", "there", fingerprint="abc")
    rules = Rules().to_dict()

    def earlier(of: Checkpoint, dtype: str = "float32", **other: object) -> Continued:
        merge = Merge("linear", None, (of,), (Group("x", ("t",), {"weight": (1.0,)}),))
        return Continued((Earlier("first", merge, Path("first"), dtype, dtype, {**rules, **other}),))

    def made(found: Continued, opened: list[Checkpoint], by_factors: bool = False) -> list[Node]:
        return [*over(found, opened, Rules(), "float32", lambda _: by_factors).recipes.values()]

    (node,) = made(earlier(was), [now])
    assert isinstance(node, Merge)
    assert node.models == (now,)
    with pytest.raises(SourceError, match="with the fingerprint abc, got xyz"):
        made(earlier(was), [Checkpoint("one", "here", fingerprint="xyz")])
    with pytest.raises(SourceError, match="got no source of that name"):
        made(earlier(was), [])
    with pytest.raises(ValueError, match="first merged in bfloat16, this run merges in float32"):
        made(earlier(was, "bfloat16"), [now])
    with pytest.raises(ValueError, match="was merged with tokenizer='union', which is 'same' with the sources"):
        made(earlier(was, tokenizer="union"), [now])
    assert made(earlier(was, by_factors=True), [now], by_factors=True) == [node]
    with pytest.raises(ValueError, match=r"expected first to say by_factors.* merged copies with other roundings"):
        made(earlier(was), [now], by_factors=True)
