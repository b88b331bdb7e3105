"""Both ways with the real mergekit: its configurations merged here, and our configurations merged by it.

The merges by mergekit are fixtures, made by tests/reference/mergekit/make_yaml_fixtures.py.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from evohydra.families.causal_lm import CausalLM
from evohydra.mergekit.reader import read
from evohydra.mergekit.writer import to_yaml
from evohydra.recipe import Group, Merge, from_dict
from evohydra.winner.remaking import rebuild
from tests.reference.mergekit.compare import apart, selected, trimmed

HERE = Path(__file__).parent / "reference" / "mergekit"
CONFIGURATIONS = sorted(file.stem for file in (HERE / "yaml").glob("*.yaml"))
TRIMMING = ("ties", "breadcrumbs", "breadcrumbs_ties", "sce")
RECIPES = sorted(file.stem for file in (HERE / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def merged() -> dict[str, Tensor]:
    return load_file(HERE / "merged.safetensors")


@pytest.fixture(scope="module")
def models() -> dict[str, dict[str, Tensor]]:
    return {name: load_file(HERE / "models" / name / "model.safetensors") for name in ("base", "one", "two")}


def text_of(folder: str, name: str) -> str:
    return (HERE / folder / f"{name}.yaml").read_text().replace("MODELS/", f"{HERE / 'models'}/")


def of_merge(merged: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.split("/", 1)[1]: tensor for key, tensor in merged.items() if key.split("/", 1)[0] == name}


def tied(group: Group, node: Merge, inputs: list[Tensor]) -> Tensor:
    """Where trimming cuts through equal magnitudes: which of those stay is the sort's business."""
    given = {**node.options, **group.parameters}
    name = node.method
    if name == "sce":
        equal = selected({"method": name, "parameters": {"select_topk": given["select_topk"]}}, inputs)[1]
        return equal.any().expand(equal.shape)  # the weights of all entries follow from those that are selected
    case = {"method": name, "parameters": {key: given[key] for key in ("density", "gamma") if key in given}}
    return torch.stack([equal for _, equal in trimmed(case, inputs)]).any(0)


def check(recipe: dict[str, Any], expected: dict[str, Tensor], models: Any, directory: Path) -> None:
    """The weights of the recipe are `expected`: the same names and types, and entries one unit apart at most."""
    rebuild(recipe, directory, {}, torch.device("cpu"))
    got = load_file(directory / "model.safetensors")
    assert got.keys() == expected.keys()
    node = from_dict(recipe["recipe"])
    assert isinstance(node, Merge)
    groups = {tensor: group for group in node.groups for tensor in group.tensors}
    dtype: torch.dtype = getattr(torch, recipe["dtype"])
    wrong, compared = {}, 0
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype, name
        distance = apart(got[name], tensor, [model[name] for model in models.values()])
        if node.method in TRIMMING:
            merged_from = ["base", *(model.name for model in node.models)]  # type: ignore[union-attr]
            distance = distance[~tied(groups[name], node, [models[model][name].to(dtype) for model in merged_from])]
        compared += distance.numel() > 0
        if distance.numel() and int(distance.max()) > 1:
            wrong[name] = f"{int(distance.max())} units, {float((distance > 1).float().mean()):.1%} of entries above 1"
    assert not wrong
    assert compared > 0.5 * len(expected)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_gives_mergekits_tensors(name: str, merged: Any, models: Any, tmp_path: Path) -> None:
    """Gradients, filters, slices, precedence, types: each entry is mergekit's, or its neighbour in bfloat16 (`apart`).

    Apart from entries whose magnitude is that at which trimming cuts, where that is the magnitude of several.
    """
    recipe = read(text_of("yaml", name), CausalLM(), 10**9)
    check(recipe, of_merge(merged, f"yaml-{name}"), models, tmp_path / "out")


@pytest.mark.parametrize("name", RECIPES)
def test_mergekit_merges_our_configuration_as_we_do(name: str, merged: Any, models: Any, tmp_path: Path) -> None:
    """A recipe of four groups across layers: mergekit's merge of the configuration written for it is ours.

    What `to_yaml` writes is still the configuration that mergekit was given; it is the same after a change of paths.
    """
    data = json.loads((HERE / "recipes" / f"{name}.json").read_text())
    text = (HERE / "recipes" / f"{name}.yaml").read_text()
    assert to_yaml(from_dict(data), yaml.safe_load(text)["dtype"]) == text
    here = json.loads(json.dumps(data).replace("MODELS/", f"{HERE / 'models'}/"))
    recipe = {**read(text_of("recipes", name), CausalLM(), 10**9), "recipe": here}
    check(recipe, of_merge(merged, f"recipes-{name}"), models, tmp_path / "out")
