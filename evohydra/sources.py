"""The source models of a run: found, opened, checked against each other, and fingerprinted."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from evohydra.adapters import Adapted
from evohydra.checkpoints import CheckpointReader, SourceError, TensorSource, fingerprint, locate
from evohydra.families import Family
from evohydra.recipe import Checkpoint

BASE = "base"


@dataclass(frozen=True)
class Source:
    """A source as it stands in conf/model; paths are hub ids, directories or zoo://<name>."""

    path: str
    family: str
    base: str | None = None
    revision: str | None = None
    base_revision: str | None = None
    adapter: str | None = None
    dtype: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class OpenSources:
    """The checkpoints of a run as recipe nodes, and by name their directories and tensors (the base is called base).

    `files_from` is the first one whose vocabulary is that of the merge: it gives configuration and tokenizer.
    """

    models: tuple[Checkpoint, ...]
    base: Checkpoint | None
    directories: Mapping[str, Path]
    tensors: Mapping[str, TensorSource]
    files_from: str


def parse(name: str, fields: Mapping[str, object]) -> Source:
    """The source `name` of a configuration; SourceError for keys that no source has."""
    unknown = sorted(set(fields) - set(Source.__dataclass_fields__))
    if unknown:
        known = sorted(Source.__dataclass_fields__)
        raise SourceError(f"model.sources.{name}: unknown keys {unknown}; a source has {known}")
    return Source(**fields)  # type: ignore[arg-type]


def common_family(sources: Mapping[str, Source]) -> str:
    """The family of all sources; SourceError where there is none, or more than one."""
    if not sources:
        raise SourceError("no source models: choose some, for example model=tiny_ja+tiny_math")
    if BASE in sources:
        raise SourceError(f"model.sources.{BASE}: no source may be called {BASE!r}, the name of the sources' base")
    families = {name: source.family for name, source in sources.items()}
    if len(set(families.values())) > 1:
        raise SourceError(f"sources of different families cannot be merged: {families}")
    return next(iter(families.values()))


def checkpoints(sources: Mapping[str, Source]) -> tuple[tuple[Checkpoint, ...], Checkpoint | None]:
    """The sources and their common base as recipe nodes; a source without a base takes that of the others.

    Raises SourceError where sources name different bases.
    """
    bases = {name: (source.base, source.base_revision) for name, source in sources.items() if source.base is not None}
    if len(set(bases.values())) > 1:
        named = ", ".join(f"{name} on {path}{f'@{rev}' if rev else ''}" for name, (path, rev) in bases.items())
        raise SourceError(f"the sources disagree on their base model: {named}. Task vectors need one common base")
    models = tuple(Checkpoint(n, s.path, s.revision, s.adapter, s.dtype) for n, s in sources.items())
    if not bases:
        return models, None
    path, revision = next(iter(bases.values()))
    assert path is not None
    return models, Checkpoint(BASE, path, revision)


def open_sources(
    models: tuple[Checkpoint, ...], base: Checkpoint | None, family: Family, tokenizer: str = "same"
) -> OpenSources:
    """Locate, read and check all checkpoints, then fingerprint them (one pass over their bytes).

    `tokenizer`: "same", all must agree; "base", tokens that a source has added behind the base's last are left out.
    Raises SourceError for all that can be wrong with a source, before anything is evaluated; also where a node already
    has a fingerprint and the tensors have another.
    """
    nodes = (*models, *((base,) if base else ()))
    directories = {node.name: _located(node) for node in nodes}
    published = {node.name: _open(node, directories[node.name]) for node in nodes}
    tensors = _on_common_tokens(published, base, family, tokenizer)
    family.check(directories, tensors)
    marked = {node.name: replace(node, fingerprint=fingerprint(node.name, tensors[node.name])) for node in nodes}
    for node in nodes:
        if node.fingerprint not in (None, marked[node.name].fingerprint):
            raise SourceError(
                f"source {node.name!r} at {directories[node.name]} is not the one of the recipe: expected the "
                f"fingerprint {node.fingerprint}, got {marked[node.name].fingerprint}"
            )
    whole = [name for name in tensors if tensors[name].shapes == published[name].shapes]
    return OpenSources(tuple(marked[m.name] for m in models), marked.get(BASE), directories, tensors, whole[0])


def _on_common_tokens(
    tensors: Mapping[str, TensorSource], base: Checkpoint | None, family: Family, tokenizer: str
) -> Mapping[str, TensorSource]:
    if tokenizer not in ("same", "base"):
        raise ValueError(f"tokenizer: expected same or base, got {tokenizer!r}")
    if tokenizer == "same":
        return tensors
    if base is None:
        raise SourceError("tokenizer=base, but the sources name no base model")
    return {name: family.without_added_tokens(source, tensors[BASE]) for name, source in tensors.items()}


def _located(node: Checkpoint) -> Path:
    try:
        return locate(node.path, node.revision)
    except SourceError as error:
        raise SourceError(f"source {node.name!r}: {error}") from error


def _open(node: Checkpoint, directory: Path) -> TensorSource:
    tensors: TensorSource = CheckpointReader(directory)
    if node.adapter:
        tensors = Adapted(tensors, locate(node.adapter))
    return _Converted(tensors, parse_dtype(node.dtype)) if node.dtype else tensors


class _Converted:
    """Tensors whose floating-point numbers are rounded to `dtype` as they are read."""

    def __init__(self, tensors: TensorSource, dtype: torch.dtype) -> None:
        self.shapes = tensors.shapes
        self._tensors, self._dtype = tensors, dtype

    def read(self, name: str) -> Tensor:
        """The tensor `name` in the chosen type; integers as they are."""
        tensor = self._tensors.read(name)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor


def parse_dtype(name: str) -> torch.dtype:
    """The floating-point type called `name`; ValueError for others."""
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in types:
        raise ValueError(f"dtype: expected auto or one of {', '.join(types)}, got {name!r}")
    return types[name]
