"""mergekit configurations as they are written: which keys there are, and of which types."""

from collections.abc import Mapping
from typing import Any

from evohydra.mergekit.yaml_files import load_yaml

KNOWN = {
    "merge_method", "base_model", "models", "slices", "parameters", "dtype", "out_dtype", "tokenizer_source",
    "tokenizer", "chat_template",
}  # fmt: skip
TOKENIZER = {"source", "tokens", "pad_to_multiple_of"}


def checked(text: str) -> Mapping[str, Any]:
    """The configuration, with what is common to all methods looked at; ValueError, naming the key."""
    config = load_yaml(text)
    if not isinstance(config, Mapping) or "merge_method" not in config:
        raise ValueError("not a mergekit configuration: expected a mapping with merge_method")
    if "modules" in config:
        raise ValueError(
            "modules: models of several modules are not merged here; give models or slices, for the one stack of layers"
        )
    only(config, KNOWN, "the configuration")
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
    parameters_of(config, "parameters")
    return config


def only(entry: Mapping[str, object], known: set[str], where: str) -> None:
    """ValueError for keys that are not among the `known`."""
    unknown = sorted(map(str, set(entry) - known))
    if unknown:
        raise ValueError(f"mergekit keys {unknown} have no counterpart here; {where} may have {sorted(known)}")


def _check_entries(entries: object, known: set[str], where: str) -> None:
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, Mapping) for entry in entries):
        raise ValueError(f"{where}: expected a list of mappings with {sorted(known)}, got {entries!r}")
    for entry in entries:
        only(entry, known, where)
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
