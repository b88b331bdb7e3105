"""A recipe as a mergekit configuration, where mergekit can express it."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from evohydra.checkpoints import locate
from evohydra.recipe import Checkpoint, Group, Merge, Node

METHODS = {
    "evohydra.methods.linear:linear": "linear",
    "evohydra.methods.slerp:slerp": "slerp",
    "evohydra.methods.task_arithmetic:task_arithmetic": "task_arithmetic",
    "evohydra.methods.ties:ties": "ties",
    "evohydra.methods.dare:dare_linear": "dare_linear",
    "evohydra.methods.dare:dare_ties": "dare_ties",
}
OPTIONS = {"normalize": "normalize", "scaling": "lambda", "rescale": "rescale"}  # our name: mergekit's
LAYER = re.compile(r"(.*?\.(?:layers|h))\.(\d+)\.(.*)")


class NotExpressible(ValueError):  # noqa: N818  (an answer, not a failure)
    """Why mergekit has no configuration for a recipe."""


def to_yaml(recipe: Node, dtype: str) -> str:
    """The configuration as YAML; NotExpressible with the reason where there is none."""
    if not isinstance(recipe, Merge) or not all(isinstance(model, Checkpoint) for model in recipe.models):
        raise NotExpressible("mergekit merges published checkpoints in one step")
    if recipe.method not in METHODS:
        raise NotExpressible(f"mergekit has no method like {recipe.method}")
    if recipe.options.get("rescale") == "density":
        raise NotExpressible("mergekit rescales by L1 norm, this recipe by density (merge.parameter.options.rescale)")
    config: dict[str, Any] = {"merge_method": METHODS[recipe.method]}
    base = recipe.models[0] if config["merge_method"] == "slerp" else recipe.base
    if config["merge_method"] != "linear":
        assert isinstance(base, Checkpoint)
        config["base_model"] = _path(base)
    config |= {"dtype": dtype, "parameters": _options(recipe)} | _models(recipe)
    note = ""
    if config["merge_method"].startswith("dare"):
        note = "# DARE draws at random: mergekit's masks differ from this recipe's, the distribution does not.\n"
    return f"{note}{yaml.safe_dump(config, sort_keys=False)}"


def _options(recipe: Merge) -> dict[str, Any]:
    options = {OPTIONS[key]: value for key, value in recipe.options.items() if key in OPTIONS}
    if "rescale" in options:
        options["rescale"] = options["rescale"] != "none"
    return options


def _path(model: Checkpoint) -> str:
    path = str(locate(model.path)) if model.path.startswith("zoo://") else model.path
    if model.revision:
        path += f"@{model.revision}"
    return f"{path}+{model.adapter}" if model.adapter else path


def _models(recipe: Merge) -> dict[str, Any]:
    """`models` where all groups have the same parameters, else a slice for each layer."""
    if all(group.parameters == recipe.groups[0].parameters for group in recipe.groups):
        parameters = recipe.groups[0].parameters
        if METHODS[recipe.method] == "slerp":
            pair = [{"model": _path(model)} for model in recipe.models if isinstance(model, Checkpoint)]
            return {"models": pair, "parameters": {"t": parameters["t"]}}
        models: list[dict[str, Any]] = [
            {"model": _path(model), "parameters": _of_model(parameters, position)}
            for position, model in enumerate(recipe.models)
            if isinstance(model, Checkpoint)
        ]
        return {"models": models}
    by_tensor = {tensor: group for group in recipe.groups for tensor in group.tensors}
    layers: dict[int, dict[str, Group]] = {}
    edges: dict[str, Group] = {}
    for tensor, group in by_tensor.items():
        match = LAYER.match(tensor)
        if match:
            layers.setdefault(int(match.group(2)), {})[match.group(3)] = group
        else:
            edges[tensor] = group
    return {"slices": [_slice(recipe, i, suffixes, edges) for i, suffixes in sorted(layers.items())]}


def _slice(recipe: Merge, layer: int, suffixes: Mapping[str, Group], edges: Mapping[str, Group]) -> dict[str, Any]:
    """One layer; mergekit takes embeddings and head with the first and the last slice, hence the filters for them."""
    sources: list[dict[str, Any]] = [
        {"model": _path(model), "layer_range": [layer, layer + 1]}
        for model in recipe.models
        if isinstance(model, Checkpoint)
    ]
    groups = {**edges, **suffixes}
    if METHODS[recipe.method] == "slerp":
        return {"sources": sources, "parameters": {"t": _filtered({n: g.parameters["t"] for n, g in groups.items()})}}
    names = list(next(iter(suffixes.values())).parameters)
    for position, source in enumerate(sources):
        source["parameters"] = {
            name: _filtered({tensor: _of_model(group.parameters, position)[name] for tensor, group in groups.items()})
            for name in names
        }
    if isinstance(recipe.base, Checkpoint) and METHODS[recipe.method] != "linear":
        sources.append({"model": _path(recipe.base), "layer_range": [layer, layer + 1]})  # slices want it named
    return {"sources": sources}


def _filtered(values: Mapping[str, Any]) -> Any:
    """A value for each tensor as mergekit's filter list; one value where all agree."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    most = max(values.values(), key=list(values.values()).count)
    return [{"filter": name, "value": value} for name, value in values.items() if value != most] + [{"value": most}]


def _of_model(parameters: Mapping[str, Any], position: int) -> dict[str, Any]:
    return {name: value[position] if isinstance(value, tuple) else value for name, value in parameters.items()}
