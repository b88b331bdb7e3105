"""Where the checkpoints and adapters of a run are; errors name the options of the source that they are about."""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from evohydra.families import OpensSources
from evohydra.families.declared import BASE
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.finding import BESIDE, at_revision, locate
from evohydra.recipe import Checkpoint

# As errors about a checkpoint name its options, with a value or without.
OF_A_SOURCE = re.compile(r"model\.sources\.<name>\.(\w+)(=[^\s,;)]*[^\s,;).])?")
# Not the model that may lie beside an adapter.
ADAPTER = (*BESIDE, "*.safetensors", "!model*.safetensors", "!pytorch_model*.safetensors")


def places(
    nodes: Sequence[Checkpoint],
    family: OpensSources,
    pinned: Mapping[str, Mapping[str, str]],
    known: Mapping[str, Path],
) -> dict[str, Path]:
    """By name where the checkpoints are; those that are `known` are not looked for."""
    sources = [node.name for node in nodes if node.name != BASE]
    found: dict[str, Path] = {}
    for node in nodes:
        pins, wanted = pinned.get(node.name, {}), family.wanted(node.variant)
        try:
            found[node.name] = known.get(node.name) or locate(
                node.path, node.revision, wanted=wanted, convert=node.convert, sha256=pins, pin=_pin(node.name)
            )
        except SourceError as error:
            told = OF_A_SOURCE.sub(functools.partial(_options, node.name, sources), str(error))
            raise type(error)(f"source {node.name!r}: {told}") from error
    return found


def _pin(name: str) -> str:
    return "model.sources.<name>.base_revision=" if name == BASE else f"model.sources.{name}.revision="


def _options(name: str, sources: Sequence[str], found: "re.Match[str]") -> str:
    """How an option of the checkpoint `name` is given on the command line; the base's have to agree for all sources."""
    option, value = found.groups("")
    if name != BASE:
        return f"model.sources.{name}.{option}{value}"
    key = option if option == "convert" else "base" if option == "path" else f"base_{option}"
    named = sources if value or len(sources) == 1 else ["<name>"]
    return " ".join(f"model.sources.{each}.{key}{value}" for each in named)


def adapter_places(nodes: Sequence[Checkpoint]) -> dict[str, Path]:
    """By name of the source where its adapter is, if any: a directory, a file, or OWNER/NAME@REVISION of the hub."""
    found: dict[str, Path] = {}
    for node in nodes:
        if node.adapter:
            path, revision = at_revision(node.adapter)
            key = f"model.sources.{node.name}.adapter"
            try:
                found[node.name] = locate(path, revision, wanted=ADAPTER, pin=f"{key}={path}@")
            except SourceError as error:
                told = OF_A_SOURCE.sub(key, str(error))
                raise type(error)(f"the adapter of source {node.name!r}: {told}") from error
    return found
