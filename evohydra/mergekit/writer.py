"""A recipe as a mergekit configuration, where mergekit can express it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from evohydra.merging.factor_merges import of_factors
from evohydra.merging.finding import locate
from evohydra.merging.group_methods import methods_of
from evohydra.merging.methods import Method, resolve
from evohydra.recipe import Checkpoint, Group, Merge, Node, Parameter

REQUIRED, OPTIONAL, FIRST, INPUT = "required", "optional", "first", "input"


@dataclass(frozen=True)
class Counterpart:
    """Our function for a method of mergekit.

    base: mergekit's base_model is our base ("required", "optional"), the first of our models ("first"), or one of them
    like any other ("input"). fixed: our parameters that mergekit lacks, with the value that is the same as its method;
    None: any, the same for all models. defaults: mergekit's, where ours have none.
    """

    method: str
    base: str
    fixed: Mapping[str, Parameter | None]
    defaults: Mapping[str, Parameter]


def _at(
    method: str,
    base: str = REQUIRED,
    fixed: Mapping[str, Parameter | None] | None = None,
    **defaults: Parameter,
) -> Counterpart:
    return Counterpart(method, base, fixed or {}, defaults)


METHODS: Mapping[str, Counterpart] = {
    "linear": _at("linear", INPUT),
    "slerp": _at("slerp", FIRST),
    "nuslerp": _at("nuslerp", OPTIONAL),
    "multislerp": _at("multislerp", OPTIONAL),
    "karcher": _at("karcher", INPUT, {"weight": None}),
    "passthrough": _at("passthrough", INPUT),
    "task_arithmetic": _at("task_arithmetic"),
    "ties": _at("ties", density=1.0),
    "dare_linear": _at("dare_linear", density=1.0),
    "dare_ties": _at("dare_ties", density=1.0),
    "della": _at("della", density=1.0, epsilon=0.15),
    "della_linear": _at("della_linear", density=1.0, epsilon=0.15),
    "breadcrumbs": _at("breadcrumbs", density=1.0, gamma=0.01),
    "breadcrumbs_ties": _at("breadcrumbs_ties", density=1.0, gamma=0.01),
    "model_stock": _at("model_stock", fixed={"scaling": 1.0}),
    "sce": _at("sce"),
    "ram": _at("ram", fixed={"scaling": 1.0}),
    "ramplus_tl": _at("ramplus_tl"),
    "nearswap": _at("nearswap"),
    "arcee_fusion": _at("arcee_fusion", fixed={"spread": 1.5}),
}
OPTIONS = {"scaling": "lambda"}  # our name: mergekit's, where they differ
WIDENING = {"arcee_fusion", "ramplus_tl"}  # mergekit's results are float32 unless told otherwise
AT_RANDOM = ("dare", "della")
Settings = Mapping[str, object]  # of one group, by mergekit's names
LAYER = re.compile(r"(.*?\.(?:layers|h|blocks))\.(\d+)\.(.*)")


class NotExpressible(ValueError):  # noqa: N818  (an answer, not a failure)
    """Why mergekit has no configuration for a recipe."""


def to_yaml(recipe: Node, dtype: str | None, out_dtype: str | None = None, donor: str | None = None) -> str:
    """The configuration as YAML; NotExpressible with the reason where there is none.

    dtype: of the merge, None for that of the sources; out_dtype: of what is written, None for the same. donor: the name
    of the checkpoint from which mergekit shall take configuration and tokenizer; see `donors`, None for what comes.
    """
    if not isinstance(recipe, Merge):
        raise NotExpressible("mergekit merges published checkpoints in one step")
    models = [model for model in recipe.models if isinstance(model, Checkpoint)]
    if len(models) < len(recipe.models) or not isinstance(recipe.base, Checkpoint | None):
        raise NotExpressible("mergekit merges published checkpoints in one step")
    for model in (*models, *([recipe.base] if recipe.base else [])):
        if model.dtype not in (None, dtype):
            raise NotExpressible(f"mergekit cannot convert a source before the merge ({model.name} to {model.dtype})")
    if any(of_factors(recipe, group) for group in recipe.groups):
        raise NotExpressible("mergekit merges the products of adapters, this recipe their factors (of=factors)")
    if len(methods_of(recipe)) > 1:
        raise NotExpressible(f"mergekit has one method for all groups, this recipe {', '.join(methods_of(recipe))}")
    name = next((name for name, each in METHODS.items() if each.method == recipe.method), None)
    if name is None:
        raise NotExpressible(f"mergekit has no method like {recipe.method}")
    counterpart, method = METHODS[name], resolve(recipe.method)
    settings = [(g.tensors, _settings(recipe, g, method, counterpart, name)) for g in recipe.groups if g.tensors]
    if not settings:
        raise NotExpressible("this recipe merges nothing: it has no groups of tensors")
    config: dict[str, object] = {"merge_method": name}
    base = {FIRST: models[0], INPUT: None}.get(counterpart.base, recipe.base)
    giver = _giver(recipe, donor, base)
    if giver is not None:
        config["base_model"] = _path(giver)
    if dtype is not None:
        config["dtype"] = dtype
    written_as = out_dtype or dtype
    if written_as is not None and (written_as != dtype or name in WIDENING):
        config["out_dtype"] = written_as
    # For slerp the base is one of the models already.
    listed = None if counterpart.base == FIRST else base
    written = _written(models, listed, settings, method)
    if giver not in (None, base) and (base is not None or giver not in models):
        written = _on_base(written, base or models[0], listed, 1 + max(_layers(settings)))
    config |= {key: value for key, value in written.items() if value != {}}
    note = ""
    if name.startswith(AT_RANDOM):
        kind = "DARE" if name.startswith("dare") else "DELLA"
        note = f"# {kind} draws at random: mergekit's masks differ from this recipe's, the distribution does not.\n"
    return f"{note}{yaml.safe_dump(config, sort_keys=False)}"


def _giver(recipe: Merge, donor: str | None, base: Checkpoint | None) -> Checkpoint | None:
    """The checkpoint that stands as base_model, which gives the files; `base` where that is the same."""
    if donor is None or not may_choose_donor(recipe):
        return base
    known = {each.name: each for each in (*recipe.models, recipe.base) if isinstance(each, Checkpoint)}
    return known[donor]


def may_choose_donor(recipe: Node) -> bool:
    """Whether a configuration can name a base_model that gives only files.

    It cannot where the method would take it for its base, and the recipe has none.
    """
    assert isinstance(recipe, Merge)
    return _counterpart(recipe).base != OPTIONAL or recipe.base is not None


def _counterpart(recipe: Merge) -> Counterpart:
    return next(each for each in METHODS.values() if each.method == recipe.method)


def _layers(settings: Sequence[tuple[Sequence[str], Settings]]) -> list[int]:
    found = [int(match.group(2)) for tensors, _ in settings for tensor in tensors if (match := LAYER.match(tensor))]
    if not found:
        raise NotExpressible("mergekit has no slices for models whose layers are not numbered")
    return found


def _on_base(
    written: Mapping[str, object], base: Checkpoint, listed: Checkpoint | None, depth: int
) -> dict[str, object]:
    """The same as slices on a base of their own, which goes before the base_model of the whole."""
    config = dict(written)
    models = config.pop("models", None)
    if models is not None:
        assert isinstance(models, list)
        sources = [{**entry, "layer_range": [0, depth]} for entry in models]
        sources += [{"model": _path(listed), "layer_range": [0, depth]}] if listed is not None else []
        config["slices"] = [{"sources": sources}]
    assert isinstance(config["slices"], list)
    config["slices"] = [{"base_model": _path(base), **each} for each in config["slices"]]
    return config


def donors(recipe: Node) -> tuple[str, ...]:
    """The names of those checkpoints from which mergekit may take configuration and tokenizer, without a `donor`.

    That is the base_model, and without one any of the models: mergekit keeps them in a set.
    """
    assert isinstance(recipe, Merge)
    counterpart = _counterpart(recipe)
    base = {FIRST: recipe.models[0], INPUT: None}.get(counterpart.base, recipe.base)
    chosen = recipe.models if base is None else (base,)
    return tuple(each.name for each in chosen if isinstance(each, Checkpoint))


def _settings(recipe: Merge, group: Group, method: Method, counterpart: Counterpart, name: str) -> Settings:
    """All that the method takes at a group, by mergekit's names."""
    given = {**method.defaults, **recipe.options, **group.parameters}
    values = {parameter: value for parameter, value in given.items() if parameter in method.parameters}
    for parameter, only in counterpart.fixed.items():
        value = values.pop(parameter)
        if only is None and isinstance(value, tuple) and len(set(value)) > 1:
            raise NotExpressible(f"mergekit's {name} has equal weights, this recipe {parameter} {list(value)}")
        if only is not None and value != only:
            raise NotExpressible(f"mergekit's {name} has a {parameter} of {only}, this recipe one of {value}")
    if values.get("rescale") == "none" == method.defaults["rescale"]:
        del values["rescale"]  # mergekit's default, too
    elif "rescale" in values:
        if values["rescale"] == "density":
            raise NotExpressible(
                "mergekit rescales by L1 norm, this recipe by density (merge.parameter.options.rescale)"
            )
        values["rescale"] = values["rescale"] != "none"
    return {OPTIONS.get(parameter, parameter): value for parameter, value in values.items()}


def _path(model: Checkpoint) -> str:
    path = str(locate(model.path)) if model.path.startswith("zoo://") else model.path
    if model.revision:
        path += f"@{model.revision}"
    return f"{path}+{model.adapter}" if model.adapter else path


def _written(
    models: list[Checkpoint],
    base: Checkpoint | None,
    settings: Sequence[tuple[Sequence[str], Settings]],
    method: Method,
) -> dict[str, object]:
    """`models` where all groups have the same settings, else a slice for each layer; what all share apart."""
    each = [values for _, values in settings]
    shared = [key for key in each[0] if _ours(key) not in method.per_model]
    own = [key for key in each[0] if key not in shared]
    common = {key: each[0][key] for key in shared if all(one[key] == each[0][key] for one in each)}
    if all(one == each[0] for one in each):
        listed = [
            {"model": _path(model), "parameters": {key: _of_model(each[0][key], position) for key in own}}
            for position, model in enumerate(models)
        ]
        return {"parameters": common, "models": [_without_empty(entry) for entry in listed]}
    layers: dict[int, dict[str, Settings]] = {}
    edges: dict[str, Settings] = {}
    for tensors, values in settings:
        for tensor in tensors:
            match = LAYER.match(tensor)
            if match:
                layers.setdefault(int(match.group(2)), {})[match.group(3)] = values
            else:
                edges[tensor] = values
    varying = [key for key in shared if key not in common]
    slices = [
        _slice(models, base, layer, {**edges, **suffixes}, own, varying) for layer, suffixes in sorted(layers.items())
    ]
    return {"parameters": common, "slices": slices}


def _slice(
    models: list[Checkpoint],
    base: Checkpoint | None,
    layer: int,
    at: Mapping[str, Settings],
    own: list[str],
    varying: list[str],
) -> dict[str, object]:
    """One layer; mergekit takes embeddings and head with the first and the last slice, hence the filters for them."""
    sources: list[dict[str, object]] = [
        {
            "model": _path(model),
            "layer_range": [layer, layer + 1],
            "parameters": {
                key: _filtered({tensor: _of_model(values[key], position) for tensor, values in at.items()})
                for key in own
            },
        }
        for position, model in enumerate(models)
    ]
    if base is not None:
        sources.append({"model": _path(base), "layer_range": [layer, layer + 1]})  # slices want it named
    parameters = {key: _filtered({tensor: values[key] for tensor, values in at.items()}) for key in varying}
    return _without_empty({"sources": [_without_empty(source) for source in sources], "parameters": parameters})


def _without_empty(entry: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in entry.items() if value != {}}


def _filtered(values: Mapping[str, object]) -> object:
    """A value for each tensor as mergekit's filter list; one value where all agree."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    most = max(values.values(), key=list(values.values()).count)
    return [{"filter": name, "value": value} for name, value in values.items() if value != most] + [{"value": most}]


def _ours(key: str) -> str:
    return next((ours for ours, theirs in OPTIONS.items() if theirs == key), key)


def _of_model(value: object, position: int) -> object:
    return value[position] if isinstance(value, tuple) else value
