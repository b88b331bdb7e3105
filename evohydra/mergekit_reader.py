"""mergekit configurations as recipes, as far as parameter space goes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from evohydra.artifacts import FORMAT
from evohydra.checkpoints import CheckpointReader, locate
from evohydra.families import Family
from evohydra.mergekit import METHODS, OPTIONS
from evohydra.methods import Method, resolve
from evohydra.recipe import Checkpoint, Group, Merge, Parameter
from evohydra.sources import BASE
from evohydra.spaces.grouping import EMBEDDINGS, Location

KNOWN = {"merge_method", "base_model", "models", "slices", "parameters", "dtype", "out_dtype", "tokenizer_source"}
IGNORED = {"int8_mask"}  # saves memory in mergekit, changes no number
WITHOUT_BASE = {"linear", "slerp"}  # for slerp mergekit's base is the first of the merged models
DEFAULTS: dict[str, Parameter] = {"density": 1.0}  # of mergekit, where our functions have none


@dataclass(frozen=True)
class Slice:
    """Layers `start` to `stop` of the same sources, with the settings of each source and those of the slice."""

    start: int
    stop: int
    sources: Mapping[str, Mapping[str, Any]]
    parameters: Mapping[str, Any]


def read(text: str, family: Family, shard_bytes: int) -> dict[str, Any]:
    """The recipe file of a mergekit YAML; ValueError, naming the key, for what has no counterpart here.

    The first model is located (and downloaded where it must be) for the names of its tensors and its layers. What is
    written has mergekit's out_dtype or dtype, without either the type in which that model was published.
    """
    config = _checked(yaml.safe_load(text))
    method_name = str(config["merge_method"])
    functions = {name: path for path, name in METHODS.items()}
    if method_name not in functions:
        raise ValueError(f"merge_method: {method_name!r} is none of {sorted(functions)}")
    references = _references(config)
    base = config.get("base_model")
    base_first = [base] if base is not None and method_name == "slerp" else []
    models = [*base_first, *(r for r in references if r != base or (method_name == "linear" and _listed(config, r)))]
    nodes = {reference: _checkpoint(name, reference) for reference, name in _names(models).items()}
    base_node = _checkpoint(BASE, base) if base is not None and method_name not in WITHOUT_BASE else None

    first = locate(nodes[models[0]].path, nodes[models[0]].revision)
    locations = family.locations(first, tuple(CheckpointReader(first).shapes))
    depth = 1 + max(at.layer for at in locations.values() if at is not None and at.layer is not None)
    slices = _slices(config, references, depth)
    method = resolve(functions[method_name])
    groups: dict[str, tuple[dict[str, Parameter], list[str]]] = {}
    for tensor, location in locations.items():
        if location is not None:
            parameters = _parameters(config, method, method_name, models, tensor, *_place(location, slices))
            groups.setdefault(repr(sorted(parameters.items())), (parameters, []))[1].append(tensor)
    merge = Merge(
        method=functions[method_name],
        base=base_node,
        models=tuple(nodes[model] for model in models),
        groups=tuple(Group(f"group {i}", tuple(names), p) for i, (p, names) in enumerate(groups.values())),
        options={"mask_seed": 0},
    )
    return {
        "format": FORMAT,
        "family": f"{type(family).__module__}.{type(family).__qualname__}",
        "files_from": BASE if base_node else nodes[models[0]].name,
        "tokenizer": "base" if config.get("tokenizer_source") == "base" and base_node else "same",
        "dtype": config.get("dtype"),
        "out_dtype": config.get("out_dtype") or str(config.get("dtype") or family.dtype(first)).removeprefix("torch."),
        "shard_bytes": shard_bytes,
        "recipe": merge.to_dict(),
    }


def _checked(config: Any) -> Mapping[str, Any]:
    if not isinstance(config, Mapping) or "merge_method" not in config:
        raise ValueError("not a mergekit configuration: expected a mapping with merge_method")
    unknown = sorted(set(config) - KNOWN)
    if unknown:
        raise ValueError(f"mergekit keys {unknown} have no counterpart here; known are {sorted(KNOWN)}")
    if ("models" in config) == ("slices" in config):
        raise ValueError("expected either models or slices")
    if config.get("tokenizer_source") not in (None, "base"):
        raise ValueError(f"tokenizer_source: only base is supported, got {config['tokenizer_source']!r}")
    return config


def _references(config: Mapping[str, Any]) -> list[str]:
    """Every model in the order of its first mention, the base last where it is not among the models."""
    listed = config["models"] if "models" in config else [s for each in config["slices"] for s in each["sources"]]
    base = config.get("base_model")
    return list(dict.fromkeys([*(str(entry["model"]) for entry in listed), *([base] if base is not None else [])]))


def _listed(config: Mapping[str, Any], reference: str) -> bool:
    return any(str(entry["model"]) == reference for entry in config.get("models", []))


def _names(references: Sequence[str]) -> dict[str, str]:
    """A name for each model: the last part of its path, numbered where two have the same."""
    names: dict[str, str] = {}
    for reference in references:
        name = PurePath(reference.split("+")[0].split("@")[0]).name
        taken = [*names.values(), BASE]
        names[reference] = name if name not in taken else f"{name}-{sum(n.startswith(name) for n in taken) + 1}"
    return names


def _checkpoint(name: str, reference: str) -> Checkpoint:
    path, _, adapter = reference.partition("+")
    path, _, revision = path.partition("@")
    return Checkpoint(name, path, revision or None, adapter or None)


def _slices(config: Mapping[str, Any], references: Sequence[str], depth: int) -> list[Slice]:
    if "models" in config:
        sources = {str(entry["model"]): entry.get("parameters") or {} for entry in config["models"]}
        return [Slice(0, depth, sources, {})]
    slices: list[Slice] = []
    for entry in config["slices"]:
        ranges = {tuple(source["layer_range"]) for source in entry["sources"]}
        start, stop = next(iter(ranges))
        if len(ranges) > 1 or start != (slices[-1].stop if slices else 0):
            raise ValueError(
                f"slices: layers {sorted(ranges)} are moved, repeated or left out; that is a path through layers, not "
                "a merge in parameter space"
            )
        sources = {str(source["model"]): source.get("parameters") or {} for source in entry["sources"]}
        missing = sorted(set(references) - set(sources) - {str(config.get("base_model"))})
        if missing:
            raise ValueError(f"slices: layers {start} to {stop} leave out {missing}; every slice must have every model")
        slices.append(Slice(start, stop, sources, entry.get("parameters") or {}))
    if slices[-1].stop != depth:
        raise ValueError(f"slices: they end at layer {slices[-1].stop}, the models have {depth}")
    return slices


def _place(location: Location, slices: Sequence[Slice]) -> tuple[Slice, float]:
    """The slice of a tensor and its place t in [0, 1] there, for gradients; t is 0 at the edges, as in mergekit."""
    if location.layer is None:
        return (slices[0] if location.module == EMBEDDINGS else slices[-1]), 0.0
    at = next(each for each in slices if each.start <= location.layer < each.stop)
    length = at.stop - at.start
    return at, (location.layer - at.start) / (length - 1) if length > 1 else 1.0


def _parameters(
    config: Mapping[str, Any],
    method: Method,
    method_name: str,
    models: Sequence[str],
    tensor: str,
    at: Slice,
    t: float,
) -> dict[str, Parameter]:
    """The method's parameters for one tensor; those of a source go before the slice's, and these before the rest."""
    common = [at.parameters, config.get("parameters") or {}]
    ours = {theirs: name for name, theirs in OPTIONS.items()}
    given = {key for settings in (*common, *at.sources.values()) for key in settings} - IGNORED
    names = {ours.get(key, key) for key in given}
    known = method.parameters
    if names - known:
        raise ValueError(f"{method_name} has no parameters {sorted(names - known)} here; it has {sorted(known)}")
    parameters: dict[str, Parameter] = {}
    for name in sorted(known):
        key = OPTIONS.get(name, name)
        if name in method.per_model:
            settings = [[at.sources.get(model, {}), *common] for model in models]
            values = [_first(each, key, tensor, t, DEFAULTS.get(name)) for each in settings]
            if any(value is None for value in values):
                raise ValueError(f"{method_name} needs {key} for every model; tensor {tensor!r} has {values}")
            parameters[name] = tuple(float(value) for value in values)
        elif (value := _first(common, key, tensor, t, None)) is not None:
            parameters[name] = value
        elif name in method.required:
            raise ValueError(f"{method_name} needs {key}, and tensor {tensor!r} has none")
    if "rescale" in known:  # a switch there; its kind is the L1 norm
        parameters["rescale"] = "l1" if parameters.get("rescale", True) else "none"
    return parameters


def _first(settings: Sequence[Mapping[str, Any]], key: str, tensor: str, t: float, default: Any) -> Any:
    values = (_value(each[key], tensor, t) for each in settings if key in each)
    return next((value for value in values if value is not None), default)


def _value(setting: Any, tensor: str, t: float) -> Any:
    """A setting at a tensor: a scalar, a gradient over the layers of the slice, or the first filter that matches."""
    if not isinstance(setting, list):
        return _value([setting], tensor, t) if isinstance(setting, Mapping) else setting
    if all(isinstance(entry, Mapping) for entry in setting):
        return next(_matching(setting, tensor, t), None)
    if not all(isinstance(entry, int | float) for entry in setting):
        raise ValueError(f"expected numbers, or filters with values, got {setting}")
    place = t * (len(setting) - 1)
    left = int(place)
    right = min(len(setting) - 1, left + 1)
    return (1 - (place - left)) * setting[left] + (place - left) * setting[right]


def _matching(conditions: Sequence[Mapping[str, Any]], tensor: str, t: float) -> Iterator[Any]:
    for condition in conditions:
        pattern = condition.get("filter")
        if pattern in (None, "*") or pattern in tensor:
            yield _value(condition["value"], tensor, t)
