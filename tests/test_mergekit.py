"""mergekit configurations: what is written reads back as the same merge, and gradients and filters mean the same."""

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from evohydra.families.causal_lm import CausalLM
from evohydra.families.declared import Source, checkpoints
from evohydra.families.sources import OpenSources, open_sources
from evohydra.mergekit import writer as mergekit
from evohydra.mergekit.reader import read
from evohydra.mergekit.writer import NotExpressible, to_yaml
from evohydra.recipe import FORMAT, Group, Merge, from_dict
from evohydra.winner.remaking import rebuild
from tests.commands import carried_out, workspace
from tests.tiny_models import save_model, save_trio

WEIGHT, SPARSE = {"weight": (0.25, 0.5)}, {"weight": (0.25, 0.5), "density": (0.3, 0.8)}
PLAIN = {"normalize": False, "scaling": 0.75}
# Parameters of the first of several groups, and options, for each method that mergekit has.
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": (WEIGHT, {"normalize": True}),
    "slerp": ({"t": 0.3}, {}),
    "nuslerp": (WEIGHT, {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
    "multislerp": (WEIGHT, {"normalize_weights": False, "eps": 1e-7}),
    "karcher": ({}, {"weight": (1.0, 1.0), "max_iter": 7, "tol": 1e-4}),
    "passthrough": ({"scale": 0.75}, {}),
    "task_arithmetic": ({"weight": (0.25, -0.5)}, {"normalize": False, "scaling": 0.5}),
    "ties": (SPARSE, {"normalize": True, "scaling": 0.75, "rescale": "l1"}),
    "dare_linear": (SPARSE, {**PLAIN, "rescale": "none"}),
    "dare_ties": (SPARSE, {**PLAIN, "rescale": "l1"}),
    "della": ({**SPARSE, "epsilon": (0.06, 0.09)}, {**PLAIN, "rescale": "none"}),
    "della_linear": ({**SPARSE, "epsilon": (0.06, 0.09)}, {**PLAIN, "rescale": "l1"}),
    "breadcrumbs": ({**SPARSE, "gamma": (0.01, 0.1)}, {**PLAIN, "rescale": "l1"}),
    "breadcrumbs_ties": ({"weight": (0.25, 0.5), "scaling": 0.5}, {"density": (0.5, 0.8), "gamma": (0.01, 0.1)}),
    "model_stock": ({"filter_wise": True}, {"scaling": 1.0}),
    "sce": ({"select_topk": 0.6}, {}),
    "ram": ({"epsilon": 1e-2}, {}),
    "ramplus_tl": ({"r": 0.4, "alpha": 0.8}, {"epsilon": 1e-2}),
    "nearswap": ({"t": 1e-2}, {}),
    "arcee_fusion": ({}, {"spread": 1.5}),
}
OF_ONE = {"passthrough", "nearswap", "arcee_fusion"}
BASE_OR_NOT = {"linear", "nuslerp", "multislerp", "karcher", "passthrough"}


def test_every_method_of_mergekit_is_tried():
    assert METHODS.keys() == mergekit.METHODS.keys()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    save_trio(root)
    return root


@pytest.fixture(scope="module")
def opened(root: Path) -> OpenSources:
    sources = {name: Source(str(root / name), "", str(root / "base")) for name in ("one", "two")}
    return open_sources(*checkpoints(sources), CausalLM())


def merge(text: str, directory: Path) -> dict[str, torch.Tensor]:
    rebuild(read(text, CausalLM(), 10**9), directory, {}, torch.device("cpu"))
    return load_file(directory / "model.safetensors")


def grouped(opened: OpenSources, method: str, groups: int, on_base: bool = True) -> Merge:
    """A recipe of that many groups, each with tensors of every kind and layer and with parameters of its own."""
    parameters, options = METHODS[method]
    names = sorted(opened.tensors["one"].shapes)

    def scaled(value: Any, by: int) -> Any:
        if isinstance(value, bool):
            return value if by % 2 == 0 else not value
        return tuple(v / (by + 1) for v in value) if isinstance(value, tuple) else value / (by + 1)

    return Merge(
        mergekit.METHODS[method].method,
        opened.base if on_base else None,
        opened.models[:1] if method in OF_ONE else opened.models,
        tuple(
            Group(str(i), tuple(names[i::groups]), {k: scaled(v, i) for k, v in parameters.items()})
            for i in range(groups)
        ),
        {"mask_seed": 0, **options},
    )


CASES = [*((name, True) for name in METHODS), *((name, False) for name in METHODS if name in BASE_OR_NOT)]


@pytest.mark.parametrize(("method", "on_base"), CASES)
@pytest.mark.parametrize("groups", [1, 4])
def test_what_is_written_reads_back_as_the_same_merge(
    opened: OpenSources, tmp_path: Path, method: str, on_base: bool, groups: int
):
    node = grouped(opened, method, groups, on_base)
    written = merge(to_yaml(node, "float32"), tmp_path / "read")
    recipe = {
        "format": FORMAT, "family": "causal_lm", "files_from": "one", "tokenizer": "same",
        "dtype": "float32", "out_dtype": "float32", "shard_bytes": 10**9, "recipe": node.to_dict(),
    }  # fmt: skip
    rebuild(recipe, tmp_path / "direct", {}, torch.device("cpu"))
    direct = load_file(tmp_path / "direct" / "model.safetensors")
    assert written.keys() == direct.keys()
    assert all(torch.equal(written[name], direct[name]) for name in direct)


@pytest.mark.parametrize("tied", ["one", "two"])
def test_heads_of_their_own_and_tied_ones(tied: str, tmp_path: Path):
    for seed, name in enumerate(("one", "two")):
        save_model(tmp_path / name, seed, tie_word_embeddings=name == tied)
    models = "".join(f"  - {{model: {tmp_path / name}, parameters: {{weight: 1}}}}\n" for name in ("one", "two"))
    merged = merge(f"merge_method: linear\ndtype: float32\nmodels:\n{models}", tmp_path / "merged")
    tensors = {name: load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")}
    heads = [each.get("lm_head.weight", each["model.embed_tokens.weight"]) for each in tensors.values()]
    torch.testing.assert_close(merged["lm_head.weight"], (heads[0] + heads[1]) / 2)


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("karcher", {"weight": (1.0, 0.5)}, r"mergekit's karcher has equal weights, this recipe weight \[1.0, 0.5\]"),
        ("model_stock", {"scaling": 0.5}, "mergekit's model_stock has a scaling of 1.0, this recipe one of 0.5"),
        ("ram", {"scaling": 2.0}, "mergekit's ram has a scaling of 1.0, this recipe one of 2.0"),
        ("arcee_fusion", {"spread": 1.0}, "mergekit's arcee_fusion has a spread of 1.5, this recipe one of 1.0"),
        ("dare_ties", {**SPARSE, "rescale": "density"}, "rescales by L1 norm"),
        ("della", {**SPARSE, "epsilon": (0.1, 0.1), "rescale": "density"}, "rescales by L1 norm"),
    ],
)
def test_what_mergekit_cannot_do_is_said(opened: OpenSources, method: str, parameters: Any, message: str):
    node = grouped(opened, method, 2)
    node = replace(node, groups=tuple(replace(group, parameters=parameters) for group in node.groups))
    with pytest.raises(NotExpressible, match=message):
        to_yaml(node, "float32")


def test_methods_and_sources_that_mergekit_has_not(opened: OpenSources):
    node = grouped(opened, "linear", 1)
    with pytest.raises(NotExpressible, match="no method like emr"):
        to_yaml(replace(node, method="emr"), "float32")
    with pytest.raises(NotExpressible, match="published checkpoints in one step"):
        to_yaml(replace(node, models=(node, node)), "float32")
    converted = replace(opened.models[0], dtype="float16")
    with pytest.raises(NotExpressible, match=r"convert a source before the merge \(one to float16\)"):
        to_yaml(replace(node, models=(converted, opened.models[1])), "float32")


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
@pytest.mark.parametrize("out_dtype", ["float32", "bfloat16"])
def test_both_types_are_written_and_read(opened: OpenSources, tmp_path: Path, dtype: str | None, out_dtype: str):
    text = to_yaml(grouped(opened, "task_arithmetic", 1), dtype, out_dtype)
    assert ("out_dtype" in text) == (dtype != out_dtype)
    recipe = read(text, CausalLM(), 10**9)
    assert (recipe["dtype"], recipe["out_dtype"]) == (dtype, out_dtype)
    written = merge(text, tmp_path / "out")
    assert {str(tensor.dtype) for tensor in written.values()} == {f"torch.{out_dtype}"}


def test_gradients_filters_and_precedence(root: Path, tmp_path: Path):
    config = {
        "merge_method": "task_arithmetic",
        "base_model": str(root / "base"),
        "models": [
            {
                "model": str(root / "one"),
                "parameters": {"weight": [{"filter": "mlp", "value": [0.2, 0.6]}, {"value": 0.4}]},
            },
            {"model": str(root / "two")},
        ],
        "parameters": {"weight": 0.1, "lambda": 2.0, "int8_mask": True},
        "dtype": "float32",
        "tokenizer_source": "base",
    }
    merged = merge(yaml.safe_dump(config), tmp_path / "out")
    base, one, two = (load_file(root / name / "model.safetensors") for name in ("base", "one", "two"))
    # Two layers: a gradient is at its first value in layer 0 and at its last in layer 1.
    first = {"model.layers.0.mlp.up_proj.weight": 0.2, "model.layers.1.mlp.up_proj.weight": 0.6}
    for name, tensor in merged.items():
        weight = first.get(name, 0.4)
        if "mlp" not in name or name in first:
            expected = base[name] + 2.0 * (weight * (one[name] - base[name]) + 0.1 * (two[name] - base[name]))
            torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6)


def test_the_recipe_of_a_mergekit_merge_can_be_rebuilt(root: Path, tmp_path: Path):
    config = {
        "merge_method": "linear",
        "models": [{"model": str(root / name), "parameters": {"weight": 1.0}} for name in ("one", "two")],
    }
    recipe = read(yaml.safe_dump(config), CausalLM(), 10**9)
    written, promised = rebuild(recipe, tmp_path / "first", {}, torch.device("cpu"))
    assert promised is None
    kept = yaml.safe_load((tmp_path / "first" / "recipe.json").read_text())
    again, promised = rebuild(kept, tmp_path / "second", {}, torch.device("cpu"))
    assert written == again == promised
    node = from_dict(kept["recipe"])
    assert isinstance(node, Merge)
    assert all(model.fingerprint for model in node.models)  # type: ignore[union-attr]


ONE, BASE = {"model": "ONE", "parameters": {"weight": 1}}, {"model": "BASE"}
TIES = {"merge_method": "ties", "base_model": "BASE", "models": [{"model": "ONE", "parameters": {"weight": 1}}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"merge_method": "no_such"}, "merge_method: 'no_such' is none of"),
        ({"models": None, "modules": {"a": {}, "b": {}}}, "modules: models of several modules"),
        ({"models": [{"model": "ONE"}]}, "ties needs weight for every model"),
        ({"tokenizer_source": "elsewhere"}, r"tokenizer_source: expected base, union or one of the models \['.*one'\]"),
        ({"tokenizer": {"source": "x"}}, r"tokenizer.source: expected base, union or one of the models"),
        (
            {"tokenizer": {"tokens": {"a": {"source": "x"}}}},
            r"tokenizer.tokens\['a'\].source: expected one of the models",
        ),
        ({"tokenizer": {"tokens": {"a": {"force": True}}}}, r"tokens\['a'\].source: expected a model, or .* got None"),
        ({"tokenizer": {"tokens": {"a": {"source": {"kind": "x"}}}}}, "kind zero or model_token, got {'kind': 'x'}"),
        ({"tokenizer": {"tokens": {"a": {"source": {"kind": "model_token", "model": "ONE"}}}}}, "token or token_id"),
        ({"tokenizer": {"tokens": {"a": "BASE"}}}, r"tokens\['a'\]: expected a mapping with source"),
        ({"tokenizer": "base"}, "tokenizer: expected a mapping with a source, got 'base'"),
        ({"tokenizer": {}, "tokenizer_source": "base"}, "expected either tokenizer or tokenizer_source"),
        ({"chat_template": "chatmll"}, "chat_template: expected auto, one of alpaca, chatml, .* got 'chatmll'"),
        ({"chat_template": 3}, "chat_template: expected auto, one of .* got 3"),
        ({"base_model": None}, "base_model: ties needs one, got none"),
        ({"base_model": 3}, "base_model: expected a string, got 3"),
        ({"dtype": 16}, "dtype: expected a string, got 16"),
        ({"models": []}, "expected either models or slices"),
        ({"models": {"a": 1}}, r"models: expected a list of mappings with \['model', 'parameters'\], got {'a': 1}"),
        ({"models": [{"model": "BASE"}]}, "ties takes at least 1 model besides the base, got 0"),
        ({"models": [{"model": {"path": "ONE"}}]}, "models: expected a model, as a path or hub id, got {'path'"),
        ({"models": [{"model": "ONE", "parameters": 1}]}, "models.parameters: expected a mapping"),
        ({"parameters": {"weight": "much"}, "models": [{"model": "ONE"}]}, "weight: expected a number, got 'much'"),
        ({"parameters": {"normalize": "never"}}, "normalize: expected true or false, got 'never'"),
        ({"parameters": {"lambda": [{"filter": "mlp"}]}}, "lambda: expected a filter, .* and a value, got"),
        ({"merge_method": "passthrough", "models": [{"model": "ONE"}]}, "passthrough takes exactly 1 model, got 2"),
        ({"models": None, "slices": [{"sources": [{"model": "ONE"}]}]}, r"expected a layer_range .*, got None"),
        ({"parameters": {"weight": ["a", 1]}, "models": [{"model": "ONE"}]}, "weight: expected a number, got 'a'"),
        ({"parameters": {"lambda": [{"value": 1}, 1]}}, "lambda: expected numbers, or filters with values, got"),
        (
            {
                "models": None,
                "slices": [{"sources": [{**ONE, "layer_range": [1, 2]}, {**BASE, "layer_range": [0, 2]}]}],
            },
            "slices: expected as many layers of every model in a slice",
        ),
        (
            {
                "models": None,
                "slices": [{"sources": [{**ONE, "layer_range": [1, 3]}, {**BASE, "layer_range": [1, 3]}]}],
            },
            "slices: expected layers below 2, as many as the models have, got \\[1, 3\\]",
        ),
    ],
)
def test_what_has_no_counterpart_is_refused(root: Path, change: dict[str, object], message: str):
    config = {key: value for key, value in {**TIES, **change}.items() if value is not None}
    text = yaml.safe_dump(config).replace("BASE", str(root / "base")).replace("ONE", str(root / "one"))
    with pytest.raises(ValueError, match=message):
        read(text, CausalLM(), 10**9)


AS_A_MODEL = {"model": {"path": "BASE"}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "mine", "nonsense": 1}, r"keys \['name', 'nonsense'\] are ignored"),
        ({"parameters": {"gamma": 1, "int8_mask": True}}, r"parameters \['gamma', 'int8_mask'\] are ignored.* ties"),
        ({"models": [{**ONE, "comment": "x"}]}, r"keys \['comment'\] are ignored.*models"),
        ({"dtype": "torch.float32"}, None),
        ({"base_model": AS_A_MODEL}, None),
        ({"models": [{**ONE, "model": {"model": "ONE"}}]}, None),
        ({"models": None, "modules": {"default": {"models": [ONE]}}}, None),
        ({"modules": {}, "slices": []}, None),
        ({"parameters": {"normalize": "yes"}}, None),
        ({"models": None, "slices": [{"sources": [{**ONE, "layer_range": [0, 2]},
          {"model": "BASE", "layer_range": [0, 2]}], "base_model": "BASE"}], "base_model": None}, None),
        ({"models": None, "modules": {"default": {"slices": [{"sources": [{**ONE, "layer_range": [0, 2]},
          {"model": "BASE", "layer_range": [0, 2]}]}]}}}, None),
    ],
)  # fmt: skip
def test_what_mergekit_takes_is_taken(
    change: dict[str, object], said: str | None, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    def text(config: Mapping[str, object]) -> str:
        plain = {key: value for key, value in config.items() if value is not None}
        return yaml.safe_dump(plain).replace("BASE", str(root / "base")).replace("ONE", str(root / "one"))

    expected = merge(text(TIES), tmp_path / "plain")
    with caplog.at_level(logging.WARNING):
        got = merge(f"---\n{text({**TIES, **change})}---\n", tmp_path / "other")
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert (re.search(said, caplog.text) is not None) if said else ("ignored" not in caplog.text)


def test_methods_ignore_weights_that_they_do_not_use(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for method, own in (("karcher", {}), ("slerp", {"t": 0.3}), ("model_stock", {}), ("nearswap", {"t": 0.3})):
        base = {} if method == "karcher" else {"base_model": str(root / ("one" if method == "slerp" else "base"))}
        listed = [str(root / name) for name in ("one", "two")][1 if method == "nearswap" else 0 :]
        config = {"merge_method": method, **base, "parameters": own}
        plain = {**config, "models": [{"model": model} for model in listed]}
        weighted = {**config, "models": [{"model": model, "parameters": {"weight": 0.7}} for model in listed]}
        results = [merge(yaml.safe_dump(each), tmp_path / f"{method}{n}") for n, each in enumerate((plain, weighted))]
        assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
        assert f"parameters ['weight'] are ignored: mergekit's {method}" in caplog.text


def test_no_yaml_is_refused_as_such():
    with pytest.raises(ValueError, match="not a mergekit configuration"):
        read("merge_method: [", CausalLM(), 10**9)
    with pytest.raises(ValueError, match="expected a mapping with merge_method"):
        read("- linear", CausalLM(), 10**9)


@pytest.mark.parametrize(
    "sources",
    [[("one", 0, 2)], [("one", 0, 1), ("one", 1, 2)], [("one", 0, 1), ("two", 1, 2)], [("two", 0, 1), ("one", 1, 2)]],
)
def test_layers_of_one_source_each(root: Path, sources: list[tuple[str, int, int]], tmp_path: Path):
    slices = [{"sources": [{"model": str(root / n), "layer_range": [start, stop]}]} for n, start, stop in sources]
    written = merge(yaml.safe_dump({"merge_method": "passthrough", "slices": slices}), tmp_path / "out")
    models = {name: load_file(root / name / "model.safetensors") for name in ("one", "two")}
    for name, tensor in written.items():
        at = 0 if "embed_tokens" in name or ".layers.0." in name else -1
        assert torch.equal(tensor, models[sources[at][0]][name]), name


def test_scales_of_slices_of_one_source_each(root: Path, tmp_path: Path):
    scale = [{"filter": "o_proj", "value": 0}, {"filter": "down_proj", "value": 0.5}, {"value": 1.0}]
    slices = [
        {"sources": [{"model": str(root / "one"), "layer_range": [0, 1], "parameters": {"scale": scale}}]},
        {"sources": [{"model": str(root / "two"), "layer_range": [1, 2]}]},
    ]
    written = merge(yaml.safe_dump({"merge_method": "passthrough", "slices": slices}), tmp_path / "out")
    one, two = (load_file(root / name / "model.safetensors") for name in ("one", "two"))
    assert not written["model.layers.0.self_attn.o_proj.weight"].any()
    down = "model.layers.{}.mlp.down_proj.weight"
    assert torch.equal(written[down.format(0)], one[down.format(0)] * 0.5)
    assert torch.equal(written[down.format(1)], two[down.format(1)])


def test_mergekits_defaults(root: Path):
    models = [{"model": str(root / name), "parameters": {"weight": 1}} for name in ("one", "two")]
    for name, expected in {
        "della": {"density": (1.0, 1.0), "epsilon": (0.15, 0.15)},
        "breadcrumbs": {"density": (1.0, 1.0), "gamma": (0.01, 0.01)},
    }.items():
        config = {"merge_method": name, "base_model": str(root / "base"), "models": models}
        node = from_dict(read(yaml.safe_dump(config), CausalLM(), 10**9)["recipe"])
        assert isinstance(node, Merge)
        assert node.groups[0].parameters == {"weight": (1.0, 1.0), **expected}


def test_numbers_and_switches_by_layer(root: Path):
    config = {
        "merge_method": "nuslerp",
        "models": [{"model": str(root / name), "parameters": {"weight": "1e-4"}} for name in ("one", "two")],
        "parameters": {"nuslerp_flatten": [True, False], "nuslerp_row_wise": {"filter": "mlp", "value": True}},
    }
    node = from_dict(read(yaml.safe_dump(config), CausalLM(), 10**9)["recipe"])
    assert isinstance(node, Merge)
    found = {tensor: group.parameters for group in node.groups for tensor in group.tensors}
    first, last = (found[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in (0, 1))
    assert first == {"weight": (1e-4, 1e-4), "nuslerp_flatten": True, "nuslerp_row_wise": True}
    assert last == {**first, "nuslerp_flatten": False}
    assert "nuslerp_row_wise" not in found["lm_head.weight"]


@pytest.mark.parametrize("method", ["linear", "karcher"])
def test_a_base_of_a_method_without_one_is_a_model_like_any_other(root: Path, method: str):
    config: dict[str, Any] = {
        "merge_method": method, "base_model": str(root / "base"), "models": [{"model": str(root / "one")}],
    }  # fmt: skip
    if method == "linear":
        with pytest.raises(ValueError, match="linear needs weight for every model"):
            read(yaml.safe_dump(config), CausalLM(), 10**9)
        config["parameters"] = {"weight": 1}
    node = from_dict(read(yaml.safe_dump(config), CausalLM(), 10**9)["recipe"])
    assert isinstance(node, Merge)
    assert node.base is None
    assert [model.path for model in node.models] == [str(root / "one"), str(root / "base")]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("keys", "tokenizer", "files_from", "multiple"),
    [
        ({}, "same", "base", None),
        ({"tokenizer_source": "base"}, "base", "base", None),
        ({"tokenizer_source": "BASE"}, "base", "base", None),
        ({"tokenizer_source": "union"}, "union", "base", None),
        ({"tokenizer_source": "ONE"}, "one", "base", None),
        ({"tokenizer": {}}, "union", "base", None),
        ({"tokenizer": {"source": "ONE", "pad_to_multiple_of": 8}}, "one", "base", 8),
        ({"tokenizer": {"source": "base", "pad_to_multiple_of": 8}, "chat_template": "auto"}, "base", "base", 8),
    ],
)
def test_the_source_of_the_tokenizer(
    root: Path, keys: dict[str, object], tokenizer: str, files_from: str, multiple: int | None, tmp_path: Path
):
    text = yaml.safe_dump({**TIES, **keys}).replace("BASE", str(root / "base")).replace("ONE", str(root / "one"))
    recipe = read(text, CausalLM(), 10**9)
    assert (recipe["tokenizer"], recipe["files_from"], recipe["pad_vocabulary_to"]) == (tokenizer, files_from, multiple)
    rows = merge(text, tmp_path / "out")["model.embed_tokens.weight"].shape[0]
    published = load_file(root / "one" / "model.safetensors")["model.embed_tokens.weight"].shape[0]
    assert rows == (published if multiple is None else -(-published // multiple) * multiple)


def test_a_base_that_is_merged_may_give_the_tokenizer(root: Path):
    config = {
        "merge_method": "slerp", "base_model": str(root / "two"), "tokenizer_source": "base",
        "models": [{"model": str(root / name)} for name in ("one", "two")], "parameters": {"t": 0.5},
    }  # fmt: skip
    recipe = read(yaml.safe_dump(config), CausalLM(), 10**9)
    assert (recipe["tokenizer"], recipe["files_from"]) == ("two", "two")
    assert [model["name"] for model in recipe["recipe"]["models"]] == ["two", "one"]


def test_integers_are_copied(root: Path, tmp_path: Path):
    for name in ("base", "one"):
        shutil.copytree(root / name, tmp_path / name)
        tensors = load_file(tmp_path / name / "model.safetensors")
        tensors["model.layers.0.counts"] = torch.tensor([1, 2, 3]) + (name == "one")
        save_file(tensors, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    text = yaml.safe_dump(TIES).replace("BASE", str(tmp_path / "base")).replace("ONE", str(tmp_path / "one"))
    node = from_dict(read(text, CausalLM(), 10**9)["recipe"])
    assert isinstance(node, Merge)
    assert not any("model.layers.0.counts" in group.tensors for group in node.groups)
    assert merge(text, tmp_path / "out")["model.layers.0.counts"].tolist() == [1, 2, 3]


def test_a_winner_in_another_type_than_its_merge(tmp_path: Path):
    """What is written beside the winner reads back as the winner's weights."""
    arguments = [*workspace(tmp_path), "baselines=null", "budget=6", "top=1", "merge=breadcrumbs"]
    carried_out([*arguments, "dtype=float32", "out_dtype=bfloat16"], tmp_path / "run")
    winner = tmp_path / "run" / "winner"
    text = (winner / "mergekit.yaml").read_text()
    assert (yaml.safe_load(text)["dtype"], yaml.safe_load(text)["out_dtype"]) == ("float32", "bfloat16")
    written, expected = merge(text, tmp_path / "out"), load_file(winner / "model.safetensors")
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)
