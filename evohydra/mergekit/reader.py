"""mergekit configurations as recipes, as far as parameter space goes."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

import torch

from evohydra.families import Family, Rules
from evohydra.families.declared import BASE
from evohydra.families.names import FAMILIES
from evohydra.families.sources import published_sources
from evohydra.files import Plain
from evohydra.mergekit import stacks
from evohydra.mergekit.configuration import TOKENIZER, checked, only_known, parameters_of, reference, warn_of_ignored
from evohydra.mergekit.settings import PASSTHROUGH, Settings, Slice, parameters_known
from evohydra.mergekit.writer import FIRST, INPUT, METHODS, REQUIRED
from evohydra.merging.checkpoints import TensorSource
from evohydra.recipe import FORMAT, Checkpoint, Group, Merge, Parameter, Stack, merges_something
from evohydra.spaces.grouping import EMBEDDINGS, Location

LINEAR = "linear"


def read(text: str, family: Family, shard_bytes: int) -> dict[str, object]:
    """The recipe file of a mergekit YAML; ValueError, naming the key, for what has no counterpart here.

    The models are located (and downloaded where they must be) for the names of the tensors that they have in common.
    What is written has mergekit's out_dtype or dtype, without either the smallest type that holds those of all models.
    Configuration, generation configuration and tokenizer are those of base_model, without one the first model's; the
    numbers of special tokens are those of the tokenizer. The chat template is that of the tokenizer's source, also
    where mergekit would choose the most common one ("auto").
    """
    config = checked(text)
    method_name = str(config["merge_method"])
    if method_name not in METHODS:
        raise ValueError(f"merge_method: {method_name!r} is none of {sorted(METHODS)}")
    warn_of_ignored(config, method_name, parameters_known(method_name, METHODS[method_name]))
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
        tokenizer=tokenizer,
        pad_vocabulary_to=multiple,
        tokens_only=matched,
        config=donor,
        allow_other_base=True,
        allow_other_splitting=True,
    )
    recipe = _path(config, family, nodes, donor, directories, published) or _merge(
        config, family, models, nodes, base_node, directories, published, rules
    )
    return {
        "format": FORMAT,
        "family": FAMILIES.name_of(family),
        "files_from": donor,
        "config": donor,
        "tokenizer": tokenizer,
        "pad_vocabulary_to": multiple,
        "tokens_only": matched,
        "dtype": config.get("dtype"),
        "out_dtype": config.get("out_dtype")
        or str(config.get("dtype") or _common_dtype(published)).removeprefix("torch."),
        "shard_bytes": shard_bytes,
        "recipe": recipe.to_dict(),
    }


def _path(
    config: Plain,
    family: Family,
    nodes: Mapping[str, Checkpoint],
    donor: str,
    directories: Mapping[str, Path],
    published: Mapping[str, TensorSource],
) -> Stack | None:
    """The path of a passthrough whose layers are not where they were; None for what is a merge."""
    if config["merge_method"] != PASSTHROUGH or "slices" not in config:
        return None
    slices = stacks.one_source_each(config["slices"])
    depths = {reference: family.depth(directories[node.name]) for reference, node in nodes.items()}
    if not stacks.is_path(slices, {each.model: depths[each.model] for each in slices}):
        return None
    if config.get("tokenizer") or config.get("tokenizer_source"):
        raise ValueError("tokenizer, tokenizer_source: a stack of layers has the tokenizer of base_model, got another")
    first = nodes[slices[0].model].name
    deepest = max(nodes.values(), key=lambda node: family.depth(directories[node.name])).name
    tensors = family.align_layers(
        directories, published, deepest, Rules(config="allow", allow_other_splitting=True)
    ).tensors
    names = tuple(tensors[deepest].shapes)
    locations = family.locations(directories[deepest], names)
    layout = family.layout(directories[deepest], names)
    known = {node.name: node for node in nodes.values()}
    if donor not in known:
        raise ValueError(f"base_model: expected one of the models of the slices, got {config['base_model']}")
    path = stacks.stack(config, slices, nodes, known[donor], {deepest: tensors[deepest]}, locations, layout)
    if merges_something(path) and len(set(depths.values())) > 1:
        raise ValueError(
            f"slices: models of {sorted(set(depths.values()))} layers are stacked only without scales, and with edges "
            f"of the first one ({first})"
        )
    return path


def _merge(
    config: Plain,
    family: Family,
    models: Sequence[str],
    nodes: Mapping[str, Checkpoint],
    base_node: Checkpoint | None,
    directories: Mapping[str, Path],
    published: Mapping[str, TensorSource],
    rules: Rules,
) -> Merge:
    """A merge of layers in their places."""
    base_name = base_node.name if base_node else None
    tensors = family.align(directories, published, base_name, rules).tensors[nodes[models[0]].name]
    first = directories[nodes[models[0]].name]
    copied = frozenset(name for name in tensors.shapes if not tensors.read(name).is_floating_point())
    locations = family.locations(first, tuple(tensors.shapes), copied)
    depth = 1 + max((at.layer for at in locations.values() if at is not None and at.layer is not None), default=-1)
    # Slices of one source each: mergekit's passthrough takes another one for each, which is linear with a weight of 0
    # for all others.
    method_name = str(config["merge_method"])
    stacked = method_name == PASSTHROUGH and len(models) > 1
    slices = _slices(config, models, depth, stacked)
    counterpart = METHODS[LINEAR if stacked else method_name]
    groups: dict[str, tuple[dict[str, Parameter], list[str]]] = {}
    for tensor, location in locations.items():
        if location is not None:
            settings = Settings(config, models, tensor, *_place(location, slices))
            parameters = settings.stacked() if stacked else settings.parameters(method_name, counterpart)
            groups.setdefault(repr(sorted(parameters.items())), (parameters, []))[1].append(tensor)
    return Merge(
        method=counterpart.method,
        base=base_node,
        models=tuple(nodes[model] for model in models),
        groups=tuple(Group(f"group {i}", tuple(names), p) for i, (p, names) in enumerate(groups.values())),
        options={"mask_seed": 0},
    )


def _common_dtype(sources: Mapping[str, TensorSource]) -> torch.dtype:
    """The smallest type that holds the floating-point tensors of all sources, as they were published."""
    common: torch.dtype | None = None
    for source in sources.values():
        for name in source.shapes:
            tensor = source.read(name)
            if tensor.is_floating_point():
                common = tensor.dtype if common is None else torch.promote_types(common, tensor.dtype)
    return common or torch.float32


def _models(config: Plain, method_name: str, role: str) -> list[str]:
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
    for model in references:
        name = PurePath(model.split("+")[0].split("@")[0]).name
        taken = [*names.values(), BASE, "same", "union"]
        names[model] = name if name not in taken else f"{name}-{sum(n.startswith(name) for n in taken) + 1}"
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
        only_known(given, TOKENIZER, "tokenizer")
        if given.get("tokens"):
            raise ValueError(
                f"tokenizer.tokens: rows that are chosen token by token have no counterpart here, got {given['tokens']}"
            )
        source, multiple, key = given.get("source", "union"), given.get("pad_to_multiple_of"), "tokenizer.source"
        source = reference(source) if isinstance(source, Mapping) else source
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


def _slices(config: Plain, models: Sequence[str], depth: int, stacked: bool) -> list[Slice]:
    if "models" in config:
        if stacked:
            raise ValueError(f"passthrough takes exactly 1 model, got {len(models)}; slices may have one each")
        return [Slice(0, depth, {entry["model"]: parameters_of(entry, "") for entry in config["models"]}, {})]
    slices: list[Slice] = []
    for entry in config["slices"]:
        ranges = {tuple(source["layer_range"]) for source in entry["sources"]}
        start, stop = next(iter(ranges))
        if len(ranges) > 1 or start != (slices[-1].stop if slices else 0):
            raise ValueError(
                f"slices: layers {sorted(ranges)} are moved, repeated or left out; that is a path through layers, not "
                "a merge in parameter space"
            )
        sources = {source["model"]: parameters_of(source, "") for source in entry["sources"]}
        missing = sorted(set(models) - set(sources) - {config.get("base_model")})
        if stacked and len(entry["sources"]) > 1:
            raise ValueError(f"slices: passthrough takes exactly 1 source, got {sorted(sources)}")
        if missing and not stacked:
            raise ValueError(f"slices: layers {start} to {stop} leave out {missing}; every slice must have every model")
        slices.append(Slice(start, stop, sources, parameters_of(entry, "")))
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
