"""`python -m evohydra.rebuild`: the same bits from the recipe alone, or a clear refusal."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evohydra import rebuild
from tests.commands import carried_out, files, python, workspace

Command = Callable[..., str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run, of a method with random masks, beside its models."""
    root = tmp_path_factory.mktemp("rebuild")
    arguments = [*workspace(root), "merge=dare_ties", "budget=6", "top=1", "start=[]", "baselines=null"]
    carried_out([*arguments, "shard_gb=0.00001"], root / "run")
    return root / "run"


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of run and models that a test may change; its recipe names the originals."""
    return Path(shutil.copytree(finished.parent, tmp_path / "copy")) / "run"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> str:
        """What the command prints, or says as it gives up."""
        monkeypatch.setattr("sys.argv", ["rebuild", *map(str, arguments)])
        try:
            rebuild.main()
        except SystemExit as ending:
            return str(ending.code)  # a message: exit code 1
        return capsys.readouterr().out

    return run


def test_the_same_bits_in_another_process(finished: Path, tmp_path: Path):
    made = python("-m", "evohydra.rebuild", finished / "recipe.json", "out", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "identical, bit for bit" in made.stdout
    winner, again = files(finished / "winner"), files(tmp_path / "out")
    for only_of_a_run in ("README.md", "mergekit.yaml"):
        winner.pop(only_of_a_run, None)
    assert again == winner
    assert len([name for name in again if name.endswith(".safetensors")]) > 1


def test_an_existing_directory_is_left_alone(finished: Path, tmp_path: Path, command: Command):
    (tmp_path / "mine.txt").write_text("precious")
    assert f"{tmp_path} exists" in command(finished / "recipe.json", tmp_path)
    assert files(tmp_path) == {"mine.txt": b"precious"}


def test_sources_that_have_moved(copied: Path, tmp_path: Path, command: Command):
    recipe = copied / "recipe.json"
    content = recipe.read_text().replace("/one", "/gone").replace("/base", "/gone")
    recipe.write_text(content)
    assert "/gone: no such directory" in command(recipe, tmp_path / "out")
    moved = [f"--source={name}={copied.parent / name}" for name in ("one", "base")]
    assert "identical, bit for bit" in command(recipe, tmp_path / "out", *moved)


def test_an_unknown_source(finished: Path, tmp_path: Path, command: Command):
    said = command(finished / "recipe.json", tmp_path / "out", "--source=three=/x")
    assert "the recipe has no source ['three']; its sources are ['base', 'one', 'two']" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("argument", ["three", "=", "one="])
def test_a_source_that_is_not_written_as_name_and_path(argument: str, finished: Path, tmp_path: Path, command: Command):
    assert command(finished / "recipe.json", tmp_path / "out", "--source", argument).startswith("rebuild: ")
    assert not (tmp_path / "out").exists()


def test_a_source_that_has_changed(copied: Path, tmp_path: Path, command: Command):
    weights = copied.parent / "one" / "model.safetensors"
    tensors = load_file(weights)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] += 1e-6
    save_file(tensors, weights)
    said = command(copied / "recipe.json", tmp_path / "out", f"--source=one={copied.parent / 'one'}")
    assert "source 'one'" in said
    assert "is not the one of the recipe: expected the fingerprint" in said
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_those_promised(copied: Path, tmp_path: Path, command: Command):
    recipe = copied / "recipe.json"
    changed = json.loads(recipe.read_text())
    changed["recipe"]["groups"][0]["parameters"]["weight"][0] += 0.25
    recipe.write_text(json.dumps(changed))
    assert "NOT identical" in command(recipe, tmp_path / "out")
    del changed["weights"]
    recipe.write_text(json.dumps(changed))
    assert "no fingerprint to compare with" in command(recipe, tmp_path / "other")


def removed(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda recipe: recipe.pop(key)


def changed(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda recipe: recipe.update({key: value})


def inside(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda recipe: recipe["recipe"].update({key: value})


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (changed("format", 99), "expected a recipe file of format"),
        (removed("format"), "expected a recipe file of format"),
        (removed("recipe"), "not a whole recipe file"),
        (removed("family"), "not a whole recipe file"),
        (changed("family", "no.such.Family"), "not a whole recipe file"),
        (changed("family", None), "not a whole recipe file"),
        (changed("dtype", "int4"), "dtype: expected"),
        (changed("files_from", "three"), "three"),
        (inside("node", "salad"), "expected node 'checkpoint', 'merge' or 'stack', got 'salad'"),
        (inside("method", "tise"), "there is none of that name"),
        (inside("models", [{"node": "checkpoint", "name": "one", "way": "x"}]), "not a recipe"),
        (inside("groups", [{"name": "all"}]), "not a recipe"),
        (
            inside("groups", [{"name": "all", "tensors": ["lm_head.weight"], "parameters": {"weight": [1, 1]}}]),
            "density",
        ),
        (inside("options", {"mask_seed": 1, "scaling": 1e60}), "is not finite"),
        (changed("recipe", ["merge"]), "not a recipe"),
    ],
)
def test_a_damaged_recipe(damage: Any, expected: str, copied: Path, tmp_path: Path, command: Command):
    recipe = json.loads((copied / "recipe.json").read_text())
    damage(recipe)
    (copied / "recipe.json").write_text(json.dumps(recipe))
    said = command(copied / "recipe.json", tmp_path / "out")
    assert said.startswith("rebuild: ")
    assert expected in said
    assert not (tmp_path / "out").exists()


def test_an_unknown_device(finished: Path, tmp_path: Path, command: Command):
    assert "abacus" in command(finished / "recipe.json", tmp_path / "out", "--device=abacus")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", '{"format": 1', "[]", "7"])
def test_a_file_that_is_no_recipe(content: str, tmp_path: Path, command: Command):
    (tmp_path / "recipe.json").write_text(content)
    assert command(tmp_path / "recipe.json", tmp_path / "out").startswith("rebuild: ")
    assert "No such file" in command(tmp_path / "missing.json", tmp_path / "out")


def test_a_single_checkpoint_is_a_recipe_too(finished: Path, copied: Path, tmp_path: Path, command: Command):
    recipe = json.loads((copied / "recipe.json").read_text())
    recipe["recipe"] = next(model for model in recipe["recipe"]["models"] if model["name"] == "two")
    recipe |= {"files_from": "two", "weights": recipe["recipe"]["fingerprint"]}
    (copied / "recipe.json").write_text(json.dumps(recipe))
    assert "identical, bit for bit" in command(copied / "recipe.json", tmp_path / "out")
    made = {
        name: tensor for file in (tmp_path / "out").glob("*.safetensors") for name, tensor in load_file(file).items()
    }
    original = load_file(finished.parent / "two" / "model.safetensors")
    assert made.keys() == original.keys()
    assert all(torch.equal(made[name], original[name]) for name in made)
