"""Runs of the command in data-flow space, with a merge on the path, and one after the other."""

import json
import shutil
from pathlib import Path

import pytest
import transformers
from safetensors.torch import load_file

from evohydra.recipe import Checkpoint, Merge, Stack, from_dict
from evohydra.report.recipe_figures import recipe_figures
from tests.commands import built, carried_out, json_lines, python, workspace
from tests.tiny_models import save_model

SMALL = ["budget=12", "top=1", "baselines=null", "merge.dataflow.repeats=2"]


def path_of(run: Path) -> Stack:
    recipe = from_dict(json.loads((run / "recipe.json").read_text())["recipe"])
    assert isinstance(recipe, Stack)
    return recipe


def rebuilt(recipe: Path, out: Path, *arguments: str) -> dict[str, object]:
    done = python("-m", "evohydra.rebuild", recipe, out, *arguments, cwd=recipe.parent)
    assert "identical, bit for bit" in done.stdout, done.stderr
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("kind", ["dfs", "dfs_slot", "dfs_network", "dfs_none", "dfs_paper"])
def test_a_path_is_found_written_and_made_again(kind: str, tmp_path: Path) -> None:
    arguments = [*workspace(tmp_path), *SMALL, f"merge={kind}"]
    summary = carried_out(arguments, tmp_path / "run")
    run = tmp_path / "run"
    path = path_of(run)
    assert [source.name for source in path.sources if isinstance(source, Checkpoint)] == ["one", "two"]
    # No base: it has no part in a path. The average of sources of one shape is in the table all the same.
    assert summary["test"]["base"] is None
    assert summary["test"]["uniform"]["n"] == summary["test"]["winner"]["n"]
    config = json.loads((run / "winner" / "config.json").read_text())
    assert config["num_hidden_layers"] == len(path.hops)
    model = transformers.AutoModelForCausalLM.from_pretrained(run / "winner")
    assert len(model.model.layers) == len(path.hops)
    assert set(recipe_figures(path)) == {"path"}
    assert (
        rebuilt(run / "recipe.json", tmp_path / "again").keys()
        == load_file(run / "winner" / "model.safetensors").keys()
    )
    # Genes are reported where they exist: slots that are taken, scales of hops that are there.
    lines = json_lines(run / "ledger.jsonl")
    assert len({len(line["genes"]) for line in lines}) > 1 or kind in ("dfs_network",)
    before = (run / "ledger.jsonl").read_bytes()
    assert carried_out(arguments, run)["recipe_digest"] == summary["recipe_digest"]
    assert (run / "ledger.jsonl").read_bytes() == before


def test_sources_of_different_depth(tmp_path: Path) -> None:
    arguments = workspace(tmp_path)
    save_model(tmp_path / "two", 7, num_hidden_layers=4)
    summary = carried_out([*arguments, *SMALL, "merge=dfs_slot"], tmp_path / "run")
    assert summary["test"]["uniform"] is None
    assert set(summary["test"]["sources"]) == {"one", "two"}
    assert all(score["n"] for score in summary["test"]["sources"].values())
    rebuilt(tmp_path / "run" / "recipe.json", tmp_path / "again")


def test_a_merge_and_a_path_through_it_at_once(tmp_path: Path) -> None:
    arguments = [*workspace(tmp_path), *SMALL, "merge=dare_ties+dfs_slot"]
    carried_out(arguments, tmp_path / "run")
    path = path_of(tmp_path / "run")
    assert isinstance(path.sources[0], Merge)
    assert path.sources[0].method == "dare_ties"
    assert set(recipe_figures(path)) == {"path", "genome"}
    rebuilt(tmp_path / "run" / "recipe.json", tmp_path / "again")


@pytest.mark.parametrize("first", ["dare_ties", "dfs_slot", "task_arithmetic+dfs"])
def test_one_run_after_the_other(first: str, tmp_path: Path) -> None:
    """The paper's hybrid: the winner of a run is a source of the next, and its recipe is made from the originals."""
    root = tmp_path / "begin"
    root.mkdir()
    arguments = workspace(root)
    path_settings = ["merge.dataflow.repeats=1"] if "dfs" in first else []
    carried_out([*arguments, "budget=6", "top=1", "baselines=null", f"merge={first}", *path_settings], root / "first")
    winner = root / "first" / "winner"
    given = [
        "model=local+local_two" if each.startswith("model=") else each
        for each in arguments
        if not each.startswith("model.sources.one")
    ]
    given += [f"model.sources.local.path={winner}", *SMALL, "merge=dfs_slot"]
    carried_out(given, root / "second")
    recipe = json.loads((root / "second" / "recipe.json").read_text())
    assert set(recipe["made_from"]) == {"local"}
    assert recipe["made_from"]["local"]["recipe"] == json.loads((winner / "recipe.json").read_text())["recipe"]
    expected = load_file(root / "second" / "winner" / "model.safetensors")
    shutil.rmtree(root / "first")
    # The originals have moved, too, and nothing but them is left.
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("base", "one", "two"):
        (root / name).rename(moved / name)
    places = [f"--source={name}={moved / name}" for name in ("one", "two")]
    places += [f"--source=base={moved / 'base'}"] if first != "dfs_slot" else []
    found = rebuilt(root / "second" / "recipe.json", tmp_path / "again", *places)
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in expected)  # type: ignore[attr-defined]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["again", "begin", "moved"]
    wrong = python(
        "-m", "evohydra.rebuild", root / "second" / "recipe.json", tmp_path / "x", "--source=three=/", cwd=root
    )
    assert "the recipe has no source ['three']; its sources are" in wrong.stderr


@pytest.mark.parametrize(
    ("changes", "settings", "expected"),
    [
        ({"hidden_size": 32}, [], r"layer 0 of source 'two' does not fit between those of 'one': expected .* got"),
        ({"intermediate_size": 40}, [], r"expected mlp\.down_proj\.weight \(16, 24\), got \(16, 40\)"),
        ({"vocab_size": 60}, ["tokenizer=same"], "embeddings of different sizes"),
        ({"rms_norm_eps": 1e-3}, [], "rms_norm_eps 0.001 where"),
        ({}, ["merge.dataflow.repeats=0"], "repeats: expected a whole number of at least 1 and at most 1000, got 0"),
        (
            {},
            ["merge.dataflow.max_hops=1"],
            "max_hops: expected null or 2 or more: the ends of the path take two, got 1",
        ),
        ({}, ["merge.dataflow.low=nan"], "low"),
        ({}, ["merge.dataflow.log=true", "merge.dataflow.low=0"], "low"),
        (
            {},
            ["merge.dataflow.scaling=stream", "merge.dataflow.low=-1", "merge.dataflow.high=3"],
            "only where they are positive",
        ),
        ({}, ["merge.dataflow.first=three"], "first: expected one, two, got 'three'"),
        ({}, ["tokenizer=union"], "a path has the embeddings and the tokenizer of 'one'"),
    ],
)
def test_refused_before_anything_is_evaluated(changes, settings: list[str], expected: str, tmp_path: Path) -> None:
    arguments = workspace(tmp_path)
    if changes:
        save_model(tmp_path / "two", 7, **changes)
    with pytest.raises(ValueError, match=expected):
        built([*arguments, "merge=dfs", *settings], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_encoder_with_a_decoder_has_no_path(tmp_path: Path) -> None:
    arguments = workspace(tmp_path)
    for name in ("one", "two"):
        shutil.rmtree(tmp_path / name)
        config = transformers.T5Config(vocab_size=40, d_model=16, d_ff=24, num_layers=2, num_heads=2, d_kv=8)
        transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / name)
    with pytest.raises(ValueError, match="expected sources that are causal language models, got 't5'"):
        built([*arguments, "merge=dfs"], tmp_path / "run")


def test_nothing_to_search(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="merge=METHOD, merge=dfs or merge=METHOD"):
        built([*workspace(tmp_path), "merge.parameter=null"], tmp_path / "run")
