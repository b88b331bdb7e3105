"""mergekit configurations: what is written reads back as the same merge, and gradients and filters mean the same."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from evohydra.artifacts import FORMAT
from evohydra.families.causal_lm import CausalLM
from evohydra.mergekit import NotExpressible, to_yaml
from evohydra.mergekit_reader import read
from evohydra.rebuild import rebuild
from evohydra.recipe import Group, Merge, from_dict
from evohydra.sources import OpenSources, Source, checkpoints, open_sources
from tests.tiny_models import save_trio

METHODS = {
    "linear:linear": ({"weight": (0.25, 0.5)}, {"normalize": True}),
    "slerp:slerp": ({"t": 0.3}, {}),
    "task_arithmetic:task_arithmetic": ({"weight": (0.25, -0.5)}, {"normalize": False, "scaling": 0.5}),
    "ties:ties": ({"weight": (0.25, 0.5), "density": (0.3, 0.8)}, {"normalize": True, "scaling": 0.75}),
}


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


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("groups", [1, 4])
def test_what_is_written_reads_back_as_the_same_merge(opened: OpenSources, tmp_path: Path, method: str, groups: int):
    parameters, options = METHODS[method]
    names = sorted(opened.tensors["one"].shapes)

    def scaled(value: object, by: int) -> object:
        return tuple(v / (by + 1) for v in value) if isinstance(value, tuple) else float(str(value)) / (by + 1)

    node = Merge(
        f"evohydra.methods.{method}",
        opened.base,
        opened.models,
        tuple(
            Group(str(i), tuple(names[i::groups]), {k: scaled(v, i) for k, v in parameters.items()})
            for i in range(groups)
        ),
        {"mask_seed": 0, **options},
    )
    written = merge(to_yaml(node, "float32"), tmp_path / "read")
    recipe = {
        "format": FORMAT, "family": "evohydra.families.causal_lm.CausalLM", "files_from": "one", "tokenizer": "same",
        "dtype": "float32", "out_dtype": "float32", "shard_bytes": 10**9, "recipe": node.to_dict(),
    }  # fmt: skip
    rebuild(recipe, tmp_path / "direct", {}, torch.device("cpu"))
    direct = load_file(tmp_path / "direct" / "model.safetensors")
    assert written.keys() == direct.keys()
    assert all(torch.equal(written[name], direct[name]) for name in direct)


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


TIES = {"merge_method": "ties", "base_model": "BASE", "models": [{"model": "ONE", "parameters": {"weight": 1}}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"merge_method": "no_such"}, "merge_method: 'no_such' is none of"),
        ({"modules": {}}, r"keys \['modules'\] have no counterpart"),
        ({"parameters": {"gamma": 1}}, r"ties has no parameters \['gamma'\]"),
        ({"models": [{"model": "ONE"}]}, "ties needs weight for every model"),
        ({"tokenizer_source": "union"}, "tokenizer_source: only base is supported"),
        ({"parameters": {"weight": ["a", 1]}, "models": [{"model": "ONE"}]}, "expected numbers, or filters"),
        (
            {"models": None, "slices": [{"sources": [{"model": "ONE", "layer_range": [1, 2]}]}]},
            "moved, repeated or left",
        ),
        ({"models": None, "slices": [{"sources": [{"model": "ONE", "layer_range": [0, 1]}]}]}, "end at layer 1"),
    ],
)
def test_what_has_no_counterpart_is_refused(root: Path, change: dict[str, object], message: str):
    config = {key: value for key, value in {**TIES, **change}.items() if value is not None}
    text = yaml.safe_dump(config).replace("BASE", str(root / "base")).replace("ONE", str(root / "one"))
    with pytest.raises(ValueError, match=message):
        read(text, CausalLM(), 10**9)


def test_dare_by_density_is_nothing_that_mergekit_has(opened: OpenSources):
    node = Merge("evohydra.methods.dare:dare_ties", opened.base, opened.models, (), {"rescale": "density"})
    with pytest.raises(NotExpressible, match="rescales by L1 norm"):
        to_yaml(node, "float32")
