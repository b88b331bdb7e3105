"""Several merges in one mergekit file, of which later ones name earlier ones (mergekit-multi).

What is expected is put together by hand; mergekit 0.1.5 gave the same for each file here.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file

from evohydra.mergekit.documents import documents
from evohydra.rebuild import main
from evohydra.winner.remaking import rebuild, rebuild_yaml
from tests import tiny_models

CPU = torch.device("cpu")
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    base = tiny_models.save_model(root / "base", 0, num_hidden_layers=4)
    for seed, name in enumerate(("one", "two", "three"), 1):
        tiny_models.save_model(root / name, seed, base=base)
    return root


def linear(weights: dict[str, float], **more: object) -> dict[str, object]:
    listed = [{"model": name, "parameters": {"weight": weight}} for name, weight in weights.items()]
    return {"merge_method": "linear", "models": listed, **more}


def text(root: Path, *configs: dict[str, object]) -> str:
    return yaml.safe_dump_all(configs).replace("ROOT", str(root))


def mixed(weights: list[tuple[float, torch.Tensor]]) -> torch.Tensor:
    return sum((w * t for w, t in weights), torch.tensor(0.0)) / sum(w for w, _ in weights)


STACK: dict[str, object] = {
    "name": "stack", "merge_method": "passthrough",
    "slices": [{"sources": [{"model": "soup", "layer_range": [0, 3]}]},
               {"sources": [{"model": "ROOT/three", "layer_range": [1, 4]}]}],
}  # fmt: skip


def test_later_merges_are_of_earlier_ones_in_any_order_of_the_file(root: Path, tmp_path: Path) -> None:
    """A soup, a stack of its layers and another model's, and a merge of that stack with itself in other scales."""
    soup = linear({"ROOT/one": 0.25, "ROOT/two": 0.75}, name="soup")
    last = {
        "merge_method": "task_arithmetic", "base_model": "stack", "parameters": {"weight": 0.5},
        "models": [{"model": "scaled"}],
    }  # fmt: skip
    scaled: dict[str, object] = {
        "name": "scaled", "merge_method": "passthrough", "models": [{"model": "stack", "parameters": {"scale": 0.5}}],
    }  # fmt: skip
    written, promised = rebuild_yaml(text(root, last, scaled, STACK, soup), tmp_path / "out", {}, CPU)
    assert promised is None
    files = {name: load_file(root / name / "model.safetensors") for name in ("one", "two", "three")}
    half = {name: mixed([(0.25, files["one"][name]), (0.75, files["two"][name])]) for name in files["one"]}
    stack: Tensors = {"model.embed_tokens.weight": half["model.embed_tokens.weight"]}
    stack |= {name: files["three"][name] for name in ("model.norm.weight", "lm_head.weight")}
    for number, (source, layer) in enumerate(
        [*((half, n) for n in range(3)), *((files["three"], n) for n in (1, 2, 3))]
    ):
        before = f"model.layers.{layer}."
        stack |= {n.replace(before, f"model.layers.{number}."): t for n, t in source.items() if n.startswith(before)}
    got = load_file(tmp_path / "out" / "model.safetensors")
    assert got.keys() == stack.keys()
    for name, tensor in stack.items():
        torch.testing.assert_close(got[name], 0.75 * tensor, rtol=1e-5, atol=1e-7)
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").num_hidden_layers == 6
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    again, promised = rebuild(recipe, tmp_path / "again", {}, CPU)  # the merges before are in its recipe
    assert again == promised == written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "out"]


def test_each_merge_has_its_own_type(root: Path, tmp_path: Path) -> None:
    soup = linear({"ROOT/one": 0.5, "ROOT/two": 0.5}, name="soup", dtype="bfloat16")
    last = linear({"soup": 0.5, "ROOT/three": 0.5}, dtype="float32")
    rebuild_yaml(text(root, soup, last), tmp_path / "out", {}, CPU)
    files = {name: load_file(root / name / "model.safetensors") for name in ("one", "two", "three")}
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        half = mixed([(0.5, files[each][name].bfloat16().float()) for each in ("one", "two")]).bfloat16()
        torch.testing.assert_close(tensor, mixed([(0.5, half.float()), (0.5, files["three"][name])]))


def test_the_merge_that_no_other_needs_is_written_where_all_have_names(root: Path, tmp_path: Path) -> None:
    first, second = linear({"ROOT/one": 1.0}, name="a"), linear({"a": 1.0, "ROOT/two": 1.0}, name="b")
    file = tmp_path / "merges.yaml"
    file.write_text(text(root, second, first))
    main_of(file, tmp_path / "out")
    one, two, got = (load_file(path / "model.safetensors") for path in (root / "one", root / "two", tmp_path / "out"))
    torch.testing.assert_close(got["lm_head.weight"], (one["lm_head.weight"] + two["lm_head.weight"]) / 2)


def main_of(file: Path, out: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["rebuild", str(file), str(out)])
        main()


def test_merges_that_nobody_needs_are_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = documents(text(root, linear({"ROOT/one": 1.0}, name="idle"), linear({"ROOT/two": 1.0})))
    assert [each.name for each in found] == [None]
    assert "merges ['idle'] are needed by no other, and are not made" in caplog.text


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ([linear({"x": 1}, name="a"), linear({"a": 1}, name="a")], r"for each but the last, got \['a'\] twice"),
        ([linear({"x": 1}), linear({"y": 1})], r"a name of its own for each but the last, got \['no name'\] twice"),
        ([linear({"x": 1}, name="a"), linear({"y": 1}, name="b")], r"one that no other needs.* got \['a', 'b'\]"),
        ([linear({"b": 1}, name="a"), linear({"a": 1}, name="b")], r"one that no other needs.* got none"),
        ([linear({"b": 1}, name="a"), linear({"a": 1}, name="b"), linear({"a": 1})], r"'a' needs itself: None > a > b"),
        ([linear({"x": 1}, name=3), linear({"y": 1})], "name: expected a text, got 3"),
        ([linear({"x": 1}), {"models": []}], "not a mergekit configuration: expected a mapping with merge_method"),
    ],
)  # fmt: skip
def test_files_without_an_end_are_refused(configs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        documents(yaml.safe_dump_all(configs))


def test_sources_of_any_of_the_merges_may_have_moved(root: Path, tmp_path: Path) -> None:
    soup, last = linear({"ROOT/one": 0.5, "ROOT/two": 0.5}, name="soup"), linear({"soup": 0.5, "ROOT/three": 0.5})
    written = rebuild_yaml(text(root, soup, last), tmp_path / "here", {}, CPU)
    gone = text(tmp_path / "gone", soup, last)
    moved = {name: str(root / name) for name in ("one", "two", "three")}
    assert rebuild_yaml(gone, tmp_path / "out", moved, CPU) == written


def test_an_unknown_source_is_told_before_anything_is_made_or_looked_for(root: Path, tmp_path: Path) -> None:
    """The models are not even there."""
    soup, last = linear({"ROOT/one": 0.5, "ROOT/two": 0.5}, name="soup"), linear({"soup": 0.5, "ROOT/three": 0.5})
    expected = (
        r"--source: the configuration has no source \['merge1', 'soup'\]; its sources are \['one', 'three', 'two'\]"
    )
    with pytest.raises(ValueError, match=expected):
        rebuild_yaml(text(tmp_path / "gone", soup, last), tmp_path / "out", {"soup": "/x", "merge1": "/x"}, CPU)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["regmean", "knots", "no_such"])
def test_a_method_that_mergekit_has_not_is_told_before_anything_is_made(method: str, tmp_path: Path) -> None:
    soup = {**linear({"ROOT/one": 0.5, "ROOT/two": 0.5}, name="soup"), "merge_method": method}
    with pytest.raises(ValueError, match=f"merge_method: '{method}' is none of .*'linear'"):
        rebuild_yaml(text(tmp_path / "gone", soup, linear({"soup": 0.5})), tmp_path / "out", {}, CPU)
    assert list(tmp_path.iterdir()) == []
