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
from evohydra.winner.directories import LIST, whole_directory
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
    assert again.pop(LIST)  # what may be replaced
    assert winner.pop(LIST)
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


def test_an_unknown_source_is_told_before_torch_is_loaded(finished: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from evohydra.rebuild import main\n"
        f"try: main([{str(finished / 'recipe.json')!r}, {str(tmp_path / 'out')!r}, '--source=three=/x'])\n"
        "except SystemExit as end: print(end, 'torch' in sys.modules)"
    )
    said = python("-c", program, cwd=tmp_path).stdout
    assert "the recipe has no source ['three']; its sources are ['base', 'one', 'two']" in said
    assert said.strip().endswith("False")


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
        (removed("recipe"), "expected a value for recipe, got none"),
        (removed("family"), "expected a value for family, got none"),
        (changed("family", "no.such.Family"), "family: expected one of causal_lm, encoder, flux"),
        (changed("family", None), "family: expected a text, got None"),
        (changed("dtype", "int4"), "dtype: expected"),
        (changed("files_from", "three"), "three"),
        (inside("node", "salad"), "expected node checkpoint, merge, stack, got 'salad'"),
        (inside("method", "tise"), "method: expected one of activation, arcee_fusion"),
        (
            inside("models", [{"node": "checkpoint", "name": "one", "way": "x"}]),
            "recipe.models[0]: expected a value for path",
        ),
        (inside("groups", [{"name": "all"}]), "recipe.groups[0]: expected a value for tensors"),
        (
            inside("groups", [{"name": "all", "tensors": ["lm_head.weight"], "parameters": {"weight": [1, 1]}}]),
            "density",
        ),
        (inside("method", "ranked"), "method: expected one of"),
        (inside("method", "cosines"), "method: expected one of"),
        (
            changed("written_as", "os.abort"),
            "written_as: expected one of lora, plain, shared, single_file, got 'os.abort'",
        ),
        (changed("shard_bytes", 0), "shard_bytes: expected a whole number of at least 1, got 0"),
        (changed("shard_bytes", 1e9), "shard_bytes: expected a whole number"),
        (changed("shard_bytes", True), "shard_bytes: expected a whole number"),
        (changed("tokenizer", ["same"]), "tokenizer: expected a text"),
        (changed("tokenizer", "auto"), "whichever was used: a recipe leaves no choice, got 'auto'"),
        (changed("commits", {"one": 7}), "commits: expected"),
        (changed("tokenizer", ""), "tokenizer: expected auto, same, base"),
        (changed("missing", "all"), "missing: expected error or base, got 'all'"),
        (changed("pad_vocabulary_to", "8"), "pad_vocabulary_to: expected"),
        (changed("pad_vocabulary_to", 10**9), "pad_vocabulary_to: expected"),
        (changed("components", {"unet": 3}), "components: expected"),
        (changed("adapters", [7]), "adapters: expected"),
        (changed("weights", 7), "weights: expected a text or null"),
        (changed("made_from", ["one"]), "made_from: expected a mapping"),
        (changed("made_from", {"four": {}}), "made_from: the recipe has no source 'four'"),
        (changed("made_from", {"one": {}}), "made_from.one: expected a recipe file of format"),
        (changed("surprise", 1), "expected no other keys than"),
        (inside("surprise", 1), "recipe: expected no other keys than"),
        (inside("options", {"mask_seed": 1, "scaling": 1e60}), "is not finite"),
        (changed("recipe", ["merge"]), "not a recipe"),
        (inside("options", {"mask_seed": 1, "zz": 1}), "options: dare_ties has no parameter ['zz']"),
        (
            inside("groups", [{"name": "all", "tensors": ["lm_head.weight"], "parameters": {"weight": True}}]),
            "group 'all': weight: expected a finite number, got True",
        ),
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


HELPER = """
from pathlib import Path
Path("it_ran").write_text("")
class Mine:
    def __init__(self):
        Path("it_was_called").write_text("")
def mine(base, models):
    Path("it_was_called").write_text("")
    return models[0]
"""


@pytest.mark.parametrize(
    ("damage", "called"),
    [
        (changed("family", "helper.Mine"), "family"),
        pytest.param(changed("family", "helper:Mine"), "family", marks=pytest.mark.slow),
        (changed("written_as", "helper.Mine"), "written_as"),
        (inside("method", "helper:mine"), "method"),
        pytest.param(inside("method", "evohydra.merging.methods.ties:ties"), "method", marks=pytest.mark.slow),
        pytest.param(changed("family", "os:abort"), "family", marks=pytest.mark.slow),
    ],
)
def test_code_that_a_recipe_names_does_not_run(damage: Any, called: str, copied: Path, tmp_path: Path):
    recipe = json.loads((copied / "recipe.json").read_text())
    damage(recipe)
    inner = {**json.loads((copied / "recipe.json").read_text()), "made_from": {"one": recipe}}
    (tmp_path / "helper.py").write_text(HELPER)
    for content in (recipe, inner):
        (tmp_path / "recipe.json").write_text(json.dumps(content))
        said = python("-m", "evohydra.rebuild", "recipe.json", "out", cwd=tmp_path)
        assert said.returncode == 1
        assert said.stderr.startswith(f"rebuild: {called}: expected one of ")
        assert said.stderr.count("\n") == 1
        assert {path.name for path in tmp_path.iterdir()} == {"copy", "helper.py", "recipe.json"}


def test_code_of_ones_own_runs_where_it_is_allowed(copied: Path, tmp_path: Path):
    recipe = json.loads((copied / "recipe.json").read_text())
    recipe["recipe"] |= {"method": "helper:mine", "options": {}}
    for group in recipe["recipe"]["groups"]:
        group["parameters"] = {}
    (tmp_path / "helper.py").write_text(HELPER)
    (tmp_path / "recipe.json").write_text(json.dumps({**recipe, "weights": None}))
    command = ("-m", "evohydra.rebuild", "recipe.json", "out")
    refused = python(*command, "--allow", "help", cwd=tmp_path)
    assert "if you have read and trust the code of 'helper', say --allow helper" in refused.stderr
    assert not (tmp_path / "it_ran").exists()
    made = python(*command, "--allow", "helper", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "it_was_called").exists()


def below(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("where", ["{root}/precious", "../precious", "x/../../precious", ".", "..", "~", ""])
def test_recipes_write_nowhere_but_into_out(
    where: str, copied: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
):
    inner = json.loads((copied / "recipe.json").read_text())
    name = where.format(root=tmp_path)
    outer = {**inner, "recipe": {"node": "checkpoint", "name": name, "path": "gone"}, "files_from": name}
    (tmp_path / "recipe.json").write_text(json.dumps({**outer, "made_from": {name: inner}}))
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years")
    monkeypatch.chdir(tmp_path)
    before = below(tmp_path)
    assert "recipe.name: expected a plain name" in command("recipe.json", "deep/out")
    assert below(tmp_path) == before


def test_what_a_recipe_is_made_from_is_made_beside_out_and_goes(copied: Path, tmp_path: Path, command: Command):
    inner = json.loads((copied / "recipe.json").read_text())
    fingerprint = inner["weights"]
    node = {"node": "checkpoint", "name": "first", "path": "gone", "fingerprint": fingerprint}
    outer = {**inner, "recipe": node, "files_from": "first", "made_from": {"first": inner}}
    (tmp_path / "recipe.json").write_text(json.dumps(outer))
    before = set(below(tmp_path))
    assert "identical, bit for bit" in command(tmp_path / "recipe.json", tmp_path / "out")
    new = set(below(tmp_path)) - before
    assert new
    assert all(name.startswith("out/") for name in new)


def test_only_what_evohydra_wrote_is_overwritten(finished: Path, tmp_path: Path, command: Command):
    recipe, out = finished / "recipe.json", tmp_path / "out"
    assert "identical" in command(recipe, out)
    first = below(out)
    assert f"{out} exists; give a directory that does not, or an empty one" in command(recipe, out)
    (out / "model.safetensors").unlink(missing_ok=True)
    assert "identical" in command(recipe, out, "--overwrite")
    assert below(out) == first
    for strange in ("notes.txt", ".git", "run.py", "notes.json", "photo.png", "other.safetensors", "models/mine.json"):
        (out / strange).parent.mkdir(exist_ok=True)
        (out / strange).write_text("mine")
        said = command(recipe, out, "--overwrite")
        assert "expected a directory that evohydra.rebuild wrote, and nothing else in it, got " in said
        assert f"got {strange.split('/')[0]};" in said
        (out / strange).unlink()
    (out / "models").rmdir()
    (out / "config.json").write_text("{}")
    assert "got config.json, which has changed" in command(recipe, out, "--overwrite")


def test_a_recipe_beside_the_users_own_files_is_no_leave_to_delete_them(
    finished: Path, tmp_path: Path, command: Command
):
    """The recipe as a run writes it, a winner with it, and one that lists files of its own."""
    hub = tmp_path / "hub"
    shutil.copytree(finished / "winner", hub)
    (hub / "mymodel").mkdir()
    (hub / "mymodel" / "model.safetensors").write_bytes(b"years")
    content = json.loads((finished / "recipe.json").read_text())
    listed = {path.relative_to(hub).as_posix(): path.stat().st_size for path in hub.rglob("*") if path.is_file()}
    listed.pop(LIST)
    for names in (None, {"mymodel/model.safetensors": 6}, 3, {**listed, "mymodel/model.safetensors": "5"}):
        (hub / "recipe.json").write_text(json.dumps(content))
        (hub / LIST).write_text(json.dumps({"files": names}))
        before = below(hub)
        assert f"{hub}: expected a directory that evohydra.rebuild wrote" in command(
            hub / "recipe.json", hub, "--overwrite"
        )
        assert below(hub) == before


@pytest.mark.parametrize("value", [0.5, [0.5], [0.5, 0.5, 0.5], 10**400, [10**400, 1]])
def test_parameters_that_are_not_one_for_each_model(value: object, copied: Path, tmp_path: Path, command: Command):
    recipe = json.loads((copied / "recipe.json").read_text())
    group = recipe["recipe"]["groups"][0]
    group["parameters"]["weight"] = value
    (copied / "recipe.json").write_text(json.dumps(recipe))
    said = command(copied / "recipe.json", tmp_path / "out")
    assert "rebuild: " in said
    assert "weight" in said
    assert ": expected a" in said
    assert "Traceback" not in said


def test_what_a_killed_rebuild_left_is_removed(copied: Path, tmp_path: Path, command: Command):
    inner = json.loads((copied / "recipe.json").read_text())
    node = {"node": "checkpoint", "name": "first", "path": "gone", "fingerprint": inner["weights"]}
    outer = {**inner, "recipe": node, "files_from": "first", "made_from": {"first": inner}}
    (tmp_path / "recipe.json").write_text(json.dumps(outer))
    before = set(below(tmp_path))
    for half in (".out.partial", ".out.source0.partial/.checkpoint.partial"):
        (tmp_path / half).mkdir(parents=True)
        (tmp_path / half / "model-00001-of-00002.safetensors").write_bytes(b"half")
        (tmp_path / half / ".recipe.json.77.partial").write_bytes(b"half")
    assert "identical, bit for bit" in command(tmp_path / "recipe.json", tmp_path / "out")
    assert all(name.startswith("out/") for name in set(below(tmp_path)) - before)
    assert b"half" not in below(tmp_path / "out").values()
    assert not list(tmp_path.glob(".out*"))


def test_what_another_rebuild_is_writing_is_not_removed(finished: Path, tmp_path: Path, command: Command):
    with whole_directory(tmp_path / "out") as directory:
        (directory / "config.json").write_text("{}")
        said = command(finished / "recipe.json", tmp_path / "out")
        assert "another command is writing there now" in said
        assert (directory / "config.json").exists()
    assert below(tmp_path) == {"out/config.json": b"{}"}


@pytest.mark.parametrize("kind", ["thesis.txt", "link", ".git/config"])
def test_what_a_killed_rebuild_cannot_have_left_stays(kind: str, finished: Path, tmp_path: Path, command: Command):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("mine")
    place = tmp_path / ".out.partial"
    if kind == "link":
        place.symlink_to("other")
    else:
        (place / kind).parent.mkdir(parents=True)
        (place / kind).write_text("years")
    before = below(tmp_path)
    assert f"{place}: expected what a killed command left" in command(finished / "recipe.json", tmp_path / "out")
    assert below(tmp_path) == before


def test_other_directories_files_and_links_are_not_overwritten(finished: Path, tmp_path: Path, command: Command):
    recipe = finished / "recipe.json"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("other")
    (tmp_path / "dangling").symlink_to("nowhere")
    before = below(tmp_path)
    for name in ("other", "file", "link", "dangling"):
        assert f"{name} exists" in command(recipe, tmp_path / name)
        assert "expected a directory that evohydra.rebuild wrote" in command(recipe, tmp_path / name, "--overwrite")
    assert below(tmp_path) == before


def test_a_source_is_not_overwritten_by_what_is_made_of_it(copied: Path, tmp_path: Path, command: Command):
    recipe, out = json.loads((copied / "recipe.json").read_text()), tmp_path / "first"
    assert "identical" in command(copied / "recipe.json", out)
    node = {"node": "checkpoint", "name": "first", "path": str(out)}
    (tmp_path / "again.json").write_text(json.dumps({**recipe, "recipe": node, "files_from": "first"}))
    before = below(out)
    for target in (out, out / "inside"):
        said = command(tmp_path / "again.json", target, "--overwrite")
        assert "is where the source 'first' is" in said
    assert below(out) == before


def test_one_name_for_two_checkpoints(copied: Path, tmp_path: Path, command: Command):
    recipe = json.loads((copied / "recipe.json").read_text())
    recipe["recipe"]["models"][0] |= {"name": "two"}
    (copied / "recipe.json").write_text(json.dumps(recipe))
    said = command(copied / "recipe.json", tmp_path / "out")
    assert "expected one checkpoint called 'two', got two that differ" in said


def test_an_unknown_device(finished: Path, tmp_path: Path, command: Command):
    assert "abacus" in command(finished / "recipe.json", tmp_path / "out", "--device=abacus")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", '{"format": 1', "[]", "7"])
def test_a_file_that_is_no_recipe(content: str, tmp_path: Path, command: Command):
    (tmp_path / "recipe.json").write_text(content)
    assert command(tmp_path / "recipe.json", tmp_path / "out").startswith("rebuild: ")
    assert "missing.json: no such file; expected recipe.json" in command(tmp_path / "missing.json", tmp_path / "out")


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


def test_what_a_recipe_says_cannot_move_the_cursor_or_fill_the_terminal(copied: Path, tmp_path: Path, command: Command):
    recipe = json.loads((copied / "recipe.json").read_text())
    for path in ("/x\x1b[2K\ridentical, bit for bit\x1b[8m", "/x\u202eti", "y" * 100_000, ""):
        recipe["recipe"]["models"][0]["path"] = path
        (copied / "recipe.json").write_text(json.dumps(recipe))
        said = command(copied / "recipe.json", tmp_path / "out")
        assert not set("\x1b\r\u202e") & set(said)
        assert len(said) < 10_000
        assert "rebuild: " in said


def test_the_current_directory_may_be_written_to(finished: Path, tmp_path: Path):
    made = python("-m", "evohydra.rebuild", finished / "recipe.json", ".", cwd=tmp_path)
    assert "identical, bit for bit" in made.stdout, made.stderr


def test_a_winner_in_which_the_user_keeps_files_is_not_replaced(tmp_path: Path):
    """The same command on a finished run writes its winner anew."""
    arguments = [*workspace(tmp_path), "budget=6", "top=1", "baselines=null", "report=false"]
    carried_out(arguments, tmp_path / "run")
    winner, kept = tmp_path / "run" / "winner", tmp_path / "run" / "winner-kept-1"
    carried_out(arguments, tmp_path / "run")
    assert not kept.exists()
    (winner / "mine.txt").write_text("mine")
    (winner / "README.md").write_text("my own card")
    before = below(winner)
    carried_out(arguments, tmp_path / "run")
    assert below(kept) == before
    assert not (winner / "mine.txt").exists()


@pytest.mark.parametrize("seed", [None, "x", 1.5])
def test_masks_need_a_seed(seed: object, copied: Path, tmp_path: Path, command: Command):
    recipe = json.loads((copied / "recipe.json").read_text())
    node = recipe["recipe"]
    node["method"] = "dare_ties"
    for group in node["groups"]:
        group["parameters"] = {"weight": [0.5] * len(node["models"]), "density": [0.5] * len(node["models"])}
    node["options"] = {} if seed is None else {"mask_seed": seed}
    (copied / "recipe.json").write_text(json.dumps(recipe))
    assert "mask_seed: expected a whole number for dare_ties" in command(copied / "recipe.json", tmp_path / "out")
