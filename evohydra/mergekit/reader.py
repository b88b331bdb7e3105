"""mergekit configurations as recipes, as far as parameter space goes."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import torch
import yaml

from evohydra.families import Family, Rules
from evohydra.families.sources import BASE, published_sources
from evohydra.mergekit.settings import PASSTHROUGH, Settings, Slice
from evohydra.mergekit.writer import FIRST, INPUT, METHODS, REQUIRED
from evohydra.merging.checkpoints import TensorSource
from evohydra.recipe import FORMAT, Checkpoint, Group, Merge, Parameter
from evohydra.spaces.grouping import EMBEDDINGS, Location

KNOWN = {
    "merge_method", "base_model", "models", "slices", "parameters", "dtype", "out_dtype", "tokenizer_source",
    "tokenizer", "chat_template",
}  # fmt: skip
TOKENIZER = {"source", "tokens", "pad_to_multiple_of"}
LINEAR = "linear"


def read(text: str, family: Family, shard_bytes: int) -> dict[str, object]:
    """The recipe file of a mergekit YAML; ValueError, naming the key, for what has no counterpart here.

    The models are located (and downloaded where they must be) for the names of the tensors that they have in common.
    What is written has mergekit's out_dtype or dtype, without either the smallest type that holds those of all models.
    Configuration, generation configuration and tokenizer are those of base_model, without one the first model's; the
    numbers of special tokens are those of the tokenizer. The chat template is that of the tokenizer's source, also
    where mergekit would choose the most common one ("auto").
    """
    config = _checked(text)
    method_name = str(config["merge_method"])
    if method_name not in METHODS:
        raise ValueError(f"merge_method: {method_name!r} is none of {sorted(METHODS)}")
    base = config.get("base_model")
    models = _models(config, method_name, METHODS[method_name].base)
    nodes = {reference: _checkpoint(name, reference) for reference, name in _names(models).items()}
    base_node = _checkpoint(BASE, base) if base is not None and base not in nodes else None
    tokenizer, multiple = _tokenizer(config, nodes, base_node)

    nodes_of_all = [*nodes.values(), *([base_node] if base_node else [])]
    _, directories, published = published_sources(nodes_of_all, family)
    base_name = base_node.name if base_node else None
    donor = base_name or nodes[base if base is not None else models[0]].name
    matched = tokenizer != "same"
    rules = Rules(
        tokenizer=tokenizer, pad_vocabulary_to=multiple, tokens_only=matched, config=donor, allow_other_base=True
    )
    tensors = family.align(directories, published, base_name, rules).tensors[nodes[models[0]].name]
    first = directories[nodes[models[0]].name]
    copied = frozenset(name for name in tensors.shapes if not tensors.read(name).is_floating_point())
    locations = family.locations(first, tuple(tensors.shapes), copied)
    depth = 1 + max((at.layer for at in locations.values() if at is not None and at.layer is not None), default=-1)
    # Slices of one source each: mergekit's passthrough takes another one for each, which is linear with a weight of 0
    # for all others.
    stacked = method_name == PASSTHROUGH and len(models) > 1
    slices = _slices(config, models, depth, stacked)
    counterpart = METHODS[LINEAR if stacked else method_name]
    groups: dict[str, tuple[dict[str, Parameter], list[str]]] = {}
    for tensor, location in locations.items():
        if location is not None:
            settings = Settings(config, models, tensor, *_place(location, slices))
            parameters = settings.stacked() if stacked else settings.parameters(method_name, counterpart)
            groups.setdefault(repr(sorted(parameters.items())), (parameters, []))[1].append(tensor)
    merge = Merge(
        method=counterpart.method,
        base=base_node,
        models=tuple(nodes[model] for model in models),
        groups=tuple(Group(f"group {i}", tuple(names), p) for i, (p, names) in enumerate(groups.values())),
        options={"mask_seed": 0},
    )
    return {
        "format": FORMAT,
        "family": f"{type(family).__module__}.{type(family).__qualname__}",
        "files_from": donor,
        "config": donor,
        "tokenizer": tokenizer,
        "pad_vocabulary_to": multiple,
        "tokens_only": matched,
        "dtype": config.get("dtype"),
        "out_dtype": config.get("out_dtype")
        or str(config.get("dtype") or _common_dtype(published)).removeprefix("torch."),
        "shard_bytes": shard_bytes,
        "recipe": merge.to_dict(),
    }


def _common_dtype(sources: Mapping[str, TensorSource]) -> torch.dtype:
    """The smallest type that holds the floating-point tensors of all sources, as they were published."""
    common: torch.dtype | None = None
    for source in sources.values():
        for name in source.shapes:
            tensor = source.read(name)
            if tensor.is_floating_point():
                common = tensor.dtype if common is None else torch.promote_types(common, tensor.dtype)
    return common or torch.float32


def _checked(text: str) -> Mapping[str, Any]:
    """The configuration, with what is common to all methods looked at."""
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not a mergekit configuration: {error}") from error
    if not isinstance(config, Mapping) or "merge_method" not in config:
        raise ValueError("not a mergekit configuration: expected a mapping with merge_method")
    if "modules" in config:
        raise ValueError(
            "modules: models of several modules are not merged here; give models or slices, for the one stack of layers"
        )
    _only(config, KNOWN, "the configuration")
    if config.get("chat_template") not in (None, "auto"):
        raise ValueError(
            f"chat_template: expected auto or none, got {config['chat_template']!r}; the merge has the chat template "
            "of the source of its tokenizer"
        )
    if ("models" in config) == ("slices" in config):
        raise ValueError("expected either models or slices")
    for key in ("base_model", "dtype", "out_dtype"):
        if not isinstance(config.get(key), str | None):
            raise ValueError(f"{key}: expected a string, got {config[key]!r}")
    if "models" in config:
        _check_entries(config["models"], {"model", "parameters"}, "models")
    else:
        _check_entries(config["slices"], {"sources", "parameters"}, "slices")
        for entry in config["slices"]:
            _check_entries(entry.get("sources"), {"model", "layer_range", "parameters"}, "slices.sources")
    _parameters_of(config, "parameters")
    return config


def _only(entry: Mapping[str, object], known: set[str], where: str) -> None:
    unknown = sorted(map(str, set(entry) - known))
    if unknown:
        raise ValueError(f"mergekit keys {unknown} have no counterpart here; {where} may have {sorted(known)}")


def _check_entries(entries: object, known: set[str], where: str) -> None:
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, Mapping) for entry in entries):
        raise ValueError(f"{where}: expected a list of mappings with {sorted(known)}, got {entries!r}")
    for entry in entries:
        _only(entry, known, where)
        if "model" in known and not isinstance(entry.get("model"), str):
            raise ValueError(f"{where}: expected a model, as a path or hub id, got {entry.get('model')!r}")
        if "layer_range" in known:
            layers = entry.get("layer_range")
            whole = isinstance(layers, list) and len(layers) == 2 and all(type(layer) is int for layer in layers)
            if not whole or layers[0] >= layers[1]:
                raise ValueError(f"{where}: expected a layer_range [first, behind the last], got {layers!r}")
        _parameters_of(entry, f"{where}.parameters")


def _parameters_of(entry: Mapping[str, object], where: str) -> Mapping[str, object]:
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, Mapping):
        raise ValueError(f"{where}: expected a mapping of names and values, got {parameters!r}")
    return parameters


def _models(config: Mapping[str, Any], method_name: str, role: str) -> list[str]:
    """What is merged, besides the base where the method has one, in the order of its first mention."""
    listed = config["models"] if "models" in config else [s for each in config["slices"] for s in each["sources"]]
    for group in [config["models"]] if "models" in config else [each["sources"] for each in config["slices"]]:
        of_group = [entry["model"] for entry in group]
        if twice := sorted({model for model in of_group if of_group.count(model) > 1}):
            raise ValueError(
                f"{', '.join(twice)}: listed twice beside itself; expected each model once, with all of its parameters"
            )
    inputs = list(dict.fromkeys(entry["model"] for entry in listed))
    base = config.get("base_model")
    if base is None and role in (REQUIRED, FIRST):
        raise ValueError(f"base_model: {method_name} needs one, got none")
    others = [model for model in inputs if model != base]
    if role == FIRST:
        return [base, *others]
    if role == INPUT:  # mergekit adds a base that is not listed to `models`
        return [*inputs, *([base] if base is not None and base not in inputs and "models" in config else [])]
    if not others:
        raise ValueError(f"{method_name} takes at least 1 model besides the base, got 0")
    return others


def _names(references: Sequence[str]) -> dict[str, str]:
    """A name for each model: the last part of its path, numbered where two have the same."""
    names: dict[str, str] = {}
    for reference in references:
        name = PurePath(reference.split("+")[0].split("@")[0]).name
        taken = [*names.values(), BASE, "same", "union"]
        names[reference] = name if name not in taken else f"{name}-{sum(n.startswith(name) for n in taken) + 1}"
    return names


def _checkpoint(name: str, reference: str) -> Checkpoint:
    path, _, adapter = reference.partition("+")
    path, _, revision = path.partition("@")
    return Checkpoint(name, path, revision or None, adapter or None)


def _tokenizer(
    config: Mapping[str, object], nodes: Mapping[str, Checkpoint], base_node: Checkpoint | None
) -> tuple[str, int | None]:
    """Whose tokenizer the merge has, in the words of `families.Rules`, and the multiple that rows are padded to."""
    source, multiple, key = config.get("tokenizer_source"), None, "tokenizer_source"
    given = config.get("tokenizer")
    if given is not None:
        if source is not None:
            raise ValueError("expected either tokenizer or tokenizer_source")
        if not isinstance(given, Mapping):
            raise ValueError(f"tokenizer: expected a mapping with a source, got {given!r}")
        _only(given, TOKENIZER, "tokenizer")
        if given.get("tokens"):
            raise ValueError(
                f"tokenizer.tokens: rows that are chosen token by token have no counterpart here, got {given['tokens']}"
            )
        source, multiple, key = given.get("source", "union"), given.get("pad_to_multiple_of"), "tokenizer.source"
    base = config.get("base_model")
    if source == "base" and base is None:
        raise ValueError(f"{key}: base, but the configuration names no base_model")
    if source is None or source == "union":
        return source or "same", multiple
    if base_node is not None and source in ("base", base):
        return BASE, multiple
    wanted = str(base if source == "base" else source)
    if wanted not in nodes:
        raise ValueError(f"{key}: expected base, union or one of the models {sorted(nodes)}, got {source!r}")
    return nodes[wanted].name, multiple


def _slices(config: Mapping[str, Any], models: Sequence[str], depth: int, stacked: bool) -> list[Slice]:
    if "models" in config:
        if stacked:
            raise ValueError(f"passthrough takes exactly 1 model, got {len(models)}; slices may have one each")
        return [Slice(0, depth, {entry["model"]: _parameters_of(entry, "") for entry in config["models"]}, {})]
    slices: list[Slice] = []
    for entry in config["slices"]:
        ranges = {tuple(source["layer_range"]) for source in entry["sources"]}
        start, stop = next(iter(ranges))
        if len(ranges) > 1 or start != (slices[-1].stop if slices else 0):
            raise ValueError(
                f"slices: layers {sorted(ranges)} are moved, repeated or left out; that is a path through layers, not "
                "a merge in parameter space"
            )
        sources = {source["model"]: _parameters_of(source, "") for source in entry["sources"]}
        missing = sorted(set(models) - set(sources) - {config.get("base_model")})
        if stacked and len(entry["sources"]) > 1:
            raise ValueError(f"slices: passthrough takes exactly 1 source, got {sorted(sources)}")
        if missing and not stacked:
            raise ValueError(f"slices: layers {start} to {stop} leave out {missing}; every slice must have every model")
        slices.append(Slice(start, stop, sources, _parameters_of(entry, "")))
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
