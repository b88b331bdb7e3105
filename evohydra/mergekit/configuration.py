"""mergekit configurations as they are written: which keys there are, and of which types."""

import logging
from collections.abc import Collection, Mapping
from typing import Any

from evohydra.files import Plain

KNOWN = {
    "merge_method",
    "base_model",
    "models",
    "slices",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
}
TOKENIZER = {"source", "tokens", "pad_to_multiple_of"}
logger = logging.getLogger(__name__)


def checked(document: Plain) -> Plain:
    """A configuration, with what is common to all methods looked at; ValueError, naming the key."""
    config = _plain(dict(document))
    only_known(config, KNOWN, "the configuration")
    if ("models" in config) == ("slices" in config):
        raise ValueError("expected either models or slices")
    for key in ("base_model", "dtype", "out_dtype"):
        if not isinstance(config.get(key), str | None):
            raise ValueError(f"{key}: expected a string, got {config[key]!r}")
    if "models" in config:
        _check_entries(config["models"], {"model", "parameters"}, "models")
    else:
        _check_entries(config["slices"], {"sources", "parameters", "base_model"}, "slices")
        for entry in config["slices"]:
            if not isinstance(entry.get("base_model"), str | None):
                raise ValueError(f"slices.base_model: expected a string, got {entry['base_model']!r}")
            _check_entries(entry.get("sources"), {"model", "layer_range", "parameters"}, "slices.sources")
    parameters_of(config, "parameters")
    return config


def whole(document: object) -> Plain:
    """A document of a YAML file that is a merge; ValueError for others."""
    if not isinstance(document, Mapping) or "merge_method" not in document:
        raise ValueError("not a mergekit configuration: expected a mapping with merge_method")
    return dict(document)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """The same with its one module in the place of `modules`, models as strings, and types without "torch."."""
    modules = config.pop("modules", None)
    if modules:
        inside = list(modules.values()) if isinstance(modules, Mapping) else []
        if len(inside) != 1 or not isinstance(inside[0], Mapping):
            raise ValueError(
                "modules: models of several modules are not merged here; expected one, with models or slices, for the "
                f"one stack of layers, got {modules!r}"
            )
        (module,) = inside
        parameters = {**(config.get("parameters") or {}), **(module.get("parameters") or {})}
        config |= {**module, **({"parameters": parameters} if parameters else {})}
    for key in ("dtype", "out_dtype"):
        if isinstance(config.get(key), str):
            config[key] = config[key].removeprefix("torch.")
    for key in ("base_model", "tokenizer_source"):
        if isinstance(config.get(key), Mapping):
            config[key] = reference(config[key])
    for entries in ("models", "slices"):
        if not config.get(entries):
            config.pop(entries, None)  # mergekit takes an empty list for none
        elif isinstance(config[entries], list):
            config[entries] = [_entry(entry) for entry in config[entries]]
    return config


def _entry(entry: object) -> object:
    """An entry of models, slices or sources with its model as a string."""
    if not isinstance(entry, Mapping):
        return entry
    found = dict(entry)
    if isinstance(found.get("model"), Mapping):
        found["model"] = reference(found["model"])
    if isinstance(found.get("base_model"), Mapping):
        found["base_model"] = reference(found["base_model"])
    if isinstance(found.get("sources"), list):
        found["sources"] = [_entry(each) for each in found["sources"]]
    if isinstance(found.get("layer_range"), list | tuple):
        found["layer_range"] = [_whole(layer) for layer in found["layer_range"]]
    return found


def _whole(layer: object) -> object:
    """The number of a layer where it is one, however it is written ("2", 2.0); else as it is."""
    if isinstance(layer, float) and layer.is_integer():
        return int(layer)
    return int(layer) if isinstance(layer, str) and layer.strip().isdecimal() else layer


def reference(model: Plain) -> str:
    """A model that is written out as a mapping, as the string path@revision+adapter@revision.

    Raises ValueError for one that is none, or is read as another architecture.
    """

    def place(part: object) -> str:
        path = part.get("path") if isinstance(part, Mapping) else part
        revision = part.get("revision") if isinstance(part, Mapping) else None
        if not isinstance(path, str):
            raise ValueError(f"models: expected a model, as a path or hub id, got {dict(model)!r}")
        return f"{path}@{revision}" if revision else path

    if model.get("override_architecture"):
        raise ValueError(f"override_architecture: models are read as what they are, got {dict(model)!r}")
    adapter = f"+{place(model['lora'])}" if model.get("lora") else ""
    return place(model.get("model")) + adapter


def warn_of_ignored(config: Plain, method: str, known: Collection[str]) -> None:
    """Warn of parameters that the method does not use, and which mergekit ignores."""
    entries = [config, *(config.get("models") or []), *(config.get("slices") or [])]
    entries += [source for each in config.get("slices") or [] for source in each["sources"]]
    given = {str(key) for entry in entries for key in entry.get("parameters") or {}}
    if unused := sorted(given - set(known)):
        logger.warning("parameters %s are ignored: mergekit's %s uses %s", unused, method, sorted(known))


def only_known(entry: Mapping[str, object], known: set[str], where: str) -> None:
    """Warn of keys that are not among the `known`, which mergekit does not read."""
    unknown = sorted(map(str, set(entry) - known))
    if unknown:
        logger.warning(
            "mergekit keys %s are ignored, as mergekit ignores them; %s may have %s", unknown, where, sorted(known)
        )


def _check_entries(entries: object, known: set[str], where: str) -> None:
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, Mapping) for entry in entries):
        raise ValueError(f"{where}: expected a list of mappings with {sorted(known)}, got {entries!r}")
    for entry in entries:
        only_known(entry, known, where)
        if "model" in known and not isinstance(entry.get("model"), str):
            raise ValueError(f"{where}: expected a model, as a path or hub id, got {entry.get('model')!r}")
        if "layer_range" in known:
            layers = entry.get("layer_range")
            whole = isinstance(layers, list) and len(layers) == 2 and all(type(layer) is int for layer in layers)
            if not whole or layers[0] >= layers[1]:
                raise ValueError(f"{where}: expected a layer_range [first, behind the last], got {layers!r}")
        parameters_of(entry, f"{where}.parameters")


def parameters_of(entry: Mapping[str, object], where: str) -> Mapping[str, object]:
    """The parameters of an entry; ValueError where they are no mapping."""
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, Mapping):
        raise ValueError(f"{where}: expected a mapping of names and values, got {parameters!r}")
    return parameters
