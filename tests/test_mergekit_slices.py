"""Slices that are merges of their own: of other models, on other bases, at other places, with layers twice.

What is expected is put together by hand; mergekit 0.1.5 gave the same for each configuration here.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file

from evohydra.families.causal_lm import CausalLM
from evohydra.mergekit.reader import read
from evohydra.winner.remaking import rebuild
from tests import tiny_models

Tensors = dict[str, torch.Tensor]
CPU = torch.device("cpu")
EDGES = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    base = tiny_models.save_model(root / "base", 0, num_hidden_layers=4)
    for seed, name in enumerate(("one", "two", "three"), 1):
        tiny_models.save_model(root / name, seed, base=base)
    file = root / "base" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "rms_norm_eps": 1e-5}))
    return root


@pytest.fixture(scope="module")
def models(root: Path) -> dict[str, Tensors]:
    return {path.name: load_file(path / "model.safetensors") for path in root.iterdir()}


def entry(*sources: tuple[str, int, int, Any], **more: object) -> dict[str, object]:
    """A slice of models, layers and parameters."""
    listed = [
        {"model": f"ROOT/{name}", "layer_range": [start, stop], **({"parameters": own} if own else {})}
        for name, start, stop, own in sources
    ]
    return {"sources": listed, **more}


def merged(root: Path, out: Path, method: str, slices: Sequence[object], **more: object) -> Tensors:
    config = yaml.safe_dump({"merge_method": method, "slices": slices, **more}).replace("ROOT", str(root))
    recipe = read(config, CausalLM(), 10**9)
    rebuild(recipe, out, {}, CPU)
    model, told = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    got = load_file(out / "model.safetensors")
    depth = {name.split(".")[2] for name in got if name.startswith("model.layers.")}
    assert model.config.num_hidden_layers == len(depth)
    again, promised = rebuild(
        json.loads((out / "recipe.json").read_text()), out.with_name(f"{out.name} again"), {}, CPU
    )
    assert again == promised
    return got


def average(models: dict[str, Tensors], name: str, weights: dict[str, float]) -> torch.Tensor:
    return sum((w * models[model][name] for model, w in weights.items()), torch.tensor(0.0)) / sum(weights.values())


def check_layers(got: Tensors, expected: Sequence[tuple[int, Any]]) -> None:
    """`expected` are for each layer of the merge the number that it had, and what its tensors are, by name there."""
    for number, (was, tensor) in enumerate(expected):
        names = [name for name in got if name.startswith(f"model.layers.{number}.")]
        assert names
        for name in names:
            there = name.replace(f"layers.{number}.", f"layers.{was}.")
            torch.testing.assert_close(got[name], tensor(there), rtol=1e-5, atol=1e-7)
    assert f"model.layers.{len(expected)}.mlp.up_proj.weight" not in got


def test_a_stack_that_is_linear_with_weights_of_0(root: Path, models: dict[str, Tensors], tmp_path: Path) -> None:
    """As frankenmerges of the size of 120b were written, whose first and last layers name both models."""
    none = {"weight": 0}
    slices = [
        entry(("one", 0, 1, None), ("two", 0, 1, none)), entry(("one", 1, 3, None)), entry(("two", 1, 3, None)),
        entry(("one", 3, 4, None), ("two", 3, 4, none)),
    ]  # fmt: skip
    got = merged(root, tmp_path / "out", "linear", slices, parameters={"weight": 1.0})
    check_layers(got, [(n, models[name].__getitem__) for name, n in
                       (("one", 0), ("one", 1), ("one", 2), ("two", 1), ("two", 2), ("one", 3))])  # fmt: skip
    for name in EDGES:
        torch.testing.assert_close(got[name], models["one"][name])


def test_slices_of_other_models_each(root: Path, models: dict[str, Tensors], tmp_path: Path) -> None:
    slices = [
        entry(("one", 0, 2, None), ("two", 0, 2, None)),
        entry(("two", 2, 4, None), ("three", 2, 4, {"weight": 1.5})),
    ]
    got = merged(root, tmp_path / "out", "linear", slices, parameters={"weight": 0.5})
    first, last = ({"one": 0.5, "two": 0.5}, {"two": 0.5, "three": 1.5})

    def of(weights: dict[str, float]) -> Any:
        return lambda name: average(models, name, weights)

    check_layers(got, [(0, of(first)), (1, of(first)), (2, of(last)), (3, of(last))])
    torch.testing.assert_close(got[EDGES[0]], average(models, EDGES[0], first))
    for name in EDGES[1:]:
        torch.testing.assert_close(got[name], average(models, name, last))


def test_a_first_slice_of_fewer_sources_cuts_those_behind_the_layers(
    root: Path, models: dict[str, Tensors], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slices = [entry(("one", 0, 2, None)), entry(("two", 2, 4, None), ("one", 2, 4, None))]
    got = merged(root, tmp_path / "out", "linear", slices, parameters={"weight": 0.5})
    both = {"one": 0.5, "two": 0.5}
    check_layers(got, [(0, models["one"].__getitem__), (1, models["one"].__getitem__),
                       (2, lambda n: average(models, n, both)), (3, lambda n: average(models, n, both))])  # fmt: skip
    torch.testing.assert_close(got["lm_head.weight"], models["two"]["lm_head.weight"])
    assert "as in mergekit, ['" in caplog.text
    assert "one'] take no part behind the last layer" in caplog.text


def slerp(one: torch.Tensor, two: torch.Tensor, t: float) -> torch.Tensor:
    angle = torch.acos((one * two).sum() / one.norm() / two.norm())
    return (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * two) / torch.sin(angle)


def test_layers_twice_with_gradients_and_filters_by_the_name_in_the_merge(
    root: Path, models: dict[str, Tensors], tmp_path: Path
) -> None:
    one, two = ("one", 0, 3, None), ("two", 0, 3, None)
    upper = ("one", 1, 4, None), ("two", 1, 4, None)
    lower = {"t": [{"filter": "layers.2", "value": 0.9}, {"value": 0.1}]}
    above = {"t": [{"filter": "layers.4", "value": 0.9}, {"filter": "layers.2", "value": 0.8}, {"value": [0.2, 0.4]}]}
    slices = [entry(one, two, parameters=lower), entry(*upper, parameters=above)]
    got = merged(root, tmp_path / "out", "slerp", slices, base_model="ROOT/one")

    def at(t: float) -> Any:
        return lambda name: slerp(models["one"][name], models["two"][name], t)

    norms = [name for name in got if name.endswith("norm.weight") and got[name].dim() == 1]
    matrices = {name: tensor for name, tensor in got.items() if name not in norms}
    check_layers(matrices, [(0, at(0.1)), (1, at(0.1)), (2, at(0.9)), (1, at(0.2)), (2, at(0.9)), (3, at(0.4))])
    torch.testing.assert_close(got[EDGES[0]], at(0.1)(EDGES[0]), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(got[EDGES[2]], at(0.2)(EDGES[2]), rtol=1e-5, atol=1e-7)


def test_filters_of_a_models_own_settings_look_at_its_own_names(
    root: Path, models: dict[str, Tensors], tmp_path: Path
) -> None:
    own = {"weight": [{"filter": "layers.2", "value": 0.9}, {"value": 0.1}]}
    half = {"weight": 0.5}
    slices = [entry(("one", 1, 3, own), ("two", 1, 3, half)), entry(("two", 2, 4, half))]
    got = merged(root, tmp_path / "out", "linear", slices)
    check_layers(got, [(1, lambda n: average(models, n, {"one": 0.1, "two": 0.5})),
                       (2, lambda n: average(models, n, {"one": 0.9, "two": 0.5})),
                       (2, models["two"].__getitem__), (3, models["two"].__getitem__)])  # fmt: skip


def added(models: dict[str, Tensors], base: str, weights: dict[str, float]) -> Any:
    return lambda name: models[base][name] + sum(w * (models[m][name] - models[base][name]) for m, w in weights.items())


def test_slices_on_bases_of_their_own(root: Path, models: dict[str, Tensors], tmp_path: Path) -> None:
    slices = [
        entry(("one", 0, 2, None), ("base", 0, 2, None), base_model="ROOT/base"),
        entry(("one", 2, 4, None), ("base", 2, 4, None), ("two", 2, 4, None), base_model="ROOT/one"),
    ]
    cut = merged(root, tmp_path / "cut", "task_arithmetic", slices, parameters={"weight": 0.5})
    torch.testing.assert_close(cut[EDGES[2]], added(models, "one", {"base": 0.5})(EDGES[2]))  # without the third source
    lacking = [slices[0], entry(("base", 2, 4, None), ("two", 2, 4, None), ("one", 2, 4, None), base_model="ROOT/one")]
    with pytest.raises(ValueError, match="what is left lacks a base or a model; expected as many sources"):
        merged(root, tmp_path / "refused", "task_arithmetic", lacking, parameters={"weight": 0.5})
    slices.append(entry(("two", 3, 4, None), ("base", 3, 4, None), base_model="ROOT/base"))
    got = merged(root, tmp_path / "out", "task_arithmetic", slices, parameters={"weight": 0.5}, base_model="ROOT/three")
    on_base, on_one = added(models, "base", {"one": 0.5}), added(models, "one", {"base": 0.5, "two": 0.5})
    last = added(models, "base", {"two": 0.5})
    check_layers(got, [(0, on_base), (1, on_base), (2, on_one), (3, on_one), (3, last)])
    torch.testing.assert_close(got[EDGES[0]], on_base(EDGES[0]))
    torch.testing.assert_close(got[EDGES[2]], last(EDGES[2]))


def test_one_base_for_all_slices_and_the_files_of_another_model(
    root: Path, models: dict[str, Tensors], tmp_path: Path
) -> None:
    slices = [entry(("one", 0, 4, None), ("two", 0, 4, None), ("base", 0, 4, None), base_model="ROOT/base")]
    more = {"parameters": {"weight": 0.5}}
    for donor, epsilon in (("one", 1e-6), ("base", 1e-5)):
        out = tmp_path / f"on {donor}"
        got = merged(root, out, "task_arithmetic", slices, base_model=f"ROOT/{donor}", **more)
        expected = added(models, "base", {"one": 0.5, "two": 0.5})
        check_layers(got, [(n, expected) for n in range(4)])
        assert json.loads((out / "config.json").read_text())["rms_norm_eps"] == epsilon


def test_layers_that_are_left_out(root: Path, models: dict[str, Tensors], tmp_path: Path) -> None:
    slices = [entry(("base", 0, 1, None), ("one", 0, 1, None)), entry(("base", 3, 4, None), ("one", 3, 4, None))]
    got = merged(root, tmp_path / "out", "task_arithmetic", slices, base_model="ROOT/base", parameters={"weight": 0.5})
    expected = added(models, "base", {"one": 0.5})
    check_layers(got, [(0, expected), (3, expected)])


@pytest.mark.parametrize("tokenizer", ["ROOT/one", "union"])
def test_a_stack_whose_tokenizer_is_chosen_has_rows_of_tokens_only(tokenizer: str, tmp_path: Path) -> None:
    tokens = len(tiny_models.CHARACTERS)
    for seed, name in enumerate(("one", "two")):
        tiny_models.save_model(tmp_path / name, seed, vocab_size=tokens + 5)
    slices = [entry(("one", 0, 2, None)), entry(("two", 0, 2, None))]
    got = merged(tmp_path, tmp_path / "out", "passthrough", slices, tokenizer_source=tokenizer)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert torch.equal(got[EDGES[0]], one[EDGES[0]][:tokens])
    assert torch.equal(got[EDGES[2]], two[EDGES[2]][:tokens])


def test_a_stack_may_have_the_files_of_a_model_that_gives_no_layers(
    root: Path, models: dict[str, Tensors], tmp_path: Path
) -> None:
    slices = [entry(("one", 0, 3, None)), entry(("two", 1, 4, None))]
    got = merged(root, tmp_path / "out", "passthrough", slices, base_model="ROOT/base")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["rms_norm_eps"] == 1e-5
    assert torch.equal(got[EDGES[0]], models["one"][EDGES[0]])
    assert torch.equal(got[EDGES[2]], models["two"][EDGES[2]])


def test_layers_of_models_with_other_settings_are_stacked_and_said(
    root: Path, models: dict[str, Tensors], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """mergekit looks at no setting; the configuration is that of base_model, or of the first model."""
    slices = [entry(("one", 0, 3, None)), entry(("base", 1, 4, None))]
    got = merged(root, tmp_path / "out", "passthrough", slices)
    check_layers(got, [(n, models[name].__getitem__) for name, n in
                       (("one", 0), ("one", 1), ("one", 2), ("base", 1), ("base", 2), ("base", 3))])  # fmt: skip
    assert "rms_norm_eps 1e-05 where 'one' has 1e-06: merges are computed with the latter" in caplog.text


WEIGHTS_OF_0 = ("task_arithmetic", "dare_linear", "breadcrumbs", "della_linear")


@pytest.mark.parametrize("method", WEIGHTS_OF_0)
@pytest.mark.parametrize("weights", [(1.0, -1.0), (0.0, 0.0)])
def test_weights_that_sum_to_0_are_not_divided_by(
    method: str, weights: tuple[float, float], root: Path, models: dict[str, Tensors], tmp_path: Path
) -> None:
    config = {
        "merge_method": method, "base_model": str(root / "base"),
        "parameters": {"normalize": True, "density": 1.0, "gamma": 0.0, "epsilon": 0.0},
        "models": [{"model": str(root / name), "parameters": {"weight": weight}}
                   for name, weight in zip(("one", "two"), weights, strict=True)],
    }  # fmt: skip
    rebuild(read(yaml.safe_dump(config), CausalLM(), 10**9), tmp_path / "out", {}, CPU)
    expected = added(models, "base", dict(zip(("one", "two"), weights, strict=True)))
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected(name), rtol=1e-5, atol=1e-6)
