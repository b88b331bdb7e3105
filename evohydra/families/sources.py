"""The source models of a run: found, opened, checked against each other, and fingerprinted."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import torch

from evohydra.families import Aligned, Family, MakesMixtures, OpensSources, Overlay, Rules
from evohydra.families.declared import BASE, STRICT
from evohydra.families.places import adapter_places, places
from evohydra.families.rules import AUTO
from evohydra.families.settings_files import check_files, settings_digest
from evohydra.merging.adapters import other_base_of_adapter
from evohydra.merging.checkpoints import Changed, Converted, SourceError, Survey, TensorSource, check_plain, survey
from evohydra.merging.finding import locate
from evohydra.merging.relatedness import check_kinship
from evohydra.merging.stamps import Stamps, stamps, written_to
from evohydra.recipe import Checkpoint
from evohydra.spaces.grouping import Location

logger = logging.getLogger(__name__)
NOTHING: Mapping[str, Mapping[str, str]] = MappingProxyType({})
NOWHERE: Mapping[str, Path] = MappingProxyType({})
UNREAD = "not read"  # in the place of a fingerprint
CONFIGURATIONS = ("*.json", "*.txt", "*.model", "*/*.json", "*/*.txt", "*/*.model")


@dataclass(frozen=True)
class OpenSources:
    """The checkpoints of a run as recipe nodes, and by name their directories and tensors (the base is called base).

    `paths` are where they were found, which for a single file is another place than its directory. `files_from` is the
    one that gives configuration and tokenizer, `overlay` what changes in them; `copied` are tensors that are never
    merged, `warnings` what a reader of the model card has to know, `surveys` what reading all of them has told.
    `weights` are the stamps of the files that hold the tensors of each, `settings` the digests of all others
    that are `wanted`, `adapters` the places of adapters.
    """

    models: tuple[Checkpoint, ...]
    base: Checkpoint | None
    directories: Mapping[str, Path]
    tensors: Mapping[str, TensorSource]
    files_from: str
    overlay: Overlay
    copied: frozenset[str] = frozenset()
    paths: Mapping[str, Path] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    surveys: Mapping[str, Survey] = field(default_factory=dict)
    weights: Mapping[str, Stamps] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    wanted: tuple[str, ...] = ()
    adapters: Mapping[str, Path] = field(default_factory=dict)

    def check_settings(self) -> None:
        """SourceError where configuration, tokenizer or templates are not those that the run began with."""
        for name, known in self.settings.items():
            if settings_digest(self.directories[name], self.wanted) != known:
                raise SourceError(
                    f"source {name!r}: configuration, tokenizer or templates in {self.directories[name]} have changed "
                    "since this run began. What is on file was scored before. Give the files their old content and the "
                    "same command again, or choose another name with run=NAME"
                )

    def check_unchanged(self) -> None:
        """SourceError where weights were written to since they were mapped: merges are then of other numbers."""
        for name, known in self.weights.items():
            if changed := written_to(known):
                raise SourceError(
                    f"source {name!r}: {changed[0]} was written to while it is in use, so that merges are no longer "
                    "those of the sources that this run began with. Results that are on file are from before; give "
                    "the file its old content to go on, or choose another name with run=NAME"
                )


@dataclass(frozen=True)
class FoundSources:
    """Checkpoints of which headers and configurations have been read, and no tensor without need.

    `published` are their tensors as published, `aligned` as they are merged; `weights` are the stamps of the files that
    hold them, `settings` the digests of all others.
    """

    models: tuple[Checkpoint, ...]
    base: Checkpoint | None
    family: Family
    rules: Rules
    paths: Mapping[str, Path]
    directories: Mapping[str, Path]
    published: Mapping[str, TensorSource]
    aligned: Aligned
    weights: Mapping[str, Stamps]
    settings: Mapping[str, str]
    adapters: Mapping[str, Path]
    warnings: tuple[str, ...] = ()

    @property
    def nodes(self) -> tuple[Checkpoint, ...]:
        """The models, and the base behind them."""
        return (*self.models, *((self.base,) if self.base else ()))

    def locations(self, copied: frozenset[str] = frozenset()) -> dict[str, Location | None]:
        """Where each tensor of the merge sits; None: copied, as are those of `copied`."""
        names = tuple(self.aligned.tensors[self.aligned.files_from].shapes)
        directory = self.directories[self.aligned.files_from]
        return self.family.locations(directory, names, self.aligned.copied | copied)


def find_sources(
    models: tuple[Checkpoint, ...],
    base: Checkpoint | None,
    family: Family,
    rules: Rules = STRICT,
    warnings: tuple[str, ...] = (),
    layers_only: str | None = None,
    pinned: Mapping[str, Mapping[str, str]] = NOTHING,
    known: Mapping[str, Path] = NOWHERE,
) -> FoundSources:
    """Locate all checkpoints and look whether they can be merged.

    Where nothing is merged, `layers_only` names the source that gives a path all but its layers: they may then differ.
    `pinned` are the SHA-256 of files by the names of source and file, `known` the places of sources. The rules of what
    is found are those that were used, without "auto" and what it looks at. Raises SourceError for what is missing or
    does not fit.
    """
    nodes = (*models, *((base,) if base else ()))
    located, adapters = places(nodes, family, pinned, known), adapter_places(nodes)
    # Before they are opened.
    weights = {name: stamps(filter(None, [path, adapters.get(name)])) for name, path in located.items()}
    paths, directories, published = published_sources(nodes, family, known=located, adapters=adapters)
    settings = {name: settings_digest(each, family.wanted(None)) for name, each in directories.items()}
    doubts = (other_base_of_adapter(node, adapters[node.name]) for node in nodes if node.name in adapters)
    warnings = (*warnings, *filter(None, doubts))
    if layers_only is None:
        aligned = family.align(directories, published, base.name if base else None, rules)
        aligned = _as_mixtures(aligned, directories, family, len(models), rules.experts_per_token)
    elif rules.experts_per_token is not None:
        raise SourceError("a mixture of experts: expected a merge, got a path through layers, or a source alone")
    else:
        aligned = family.align_layers(directories, published, layers_only, rules)
    rules = replace(rules, tokenizer=aligned.tokenizer if rules.tokenizer == AUTO else rules.tokenizer, texts=())
    return FoundSources(
        models, base, family, rules, paths, directories, published, aligned, weights, settings, adapters, warnings
    )


def _as_mixtures(
    aligned: Aligned, directories: Mapping[str, Path], family: Family, experts: int, per_token: int | None
) -> Aligned:
    """The sources as mixtures, where the merge is to be one."""
    if per_token is None:
        return aligned
    if not isinstance(family, MakesMixtures):
        raise SourceError(
            f"merge=moe: expected causal language models, whose layers have a form as a mixture of experts, got the "
            f"family {family.name!r}"
        )
    return family.upcycled(directories, aligned, experts, per_token)


def read_sources(found: FoundSources, known: Mapping[str, Survey] | None = None) -> OpenSources:
    """Read and check every tensor, and fingerprint checkpoints as published (one pass over their bytes).

    What is allowed although it is doubtful is logged, and joins the warnings. `known` are surveys that another process
    has made: their sources are not read again, and nothing is said again. Raises SourceError for tensors that are not
    finite, for sources that do not look like the base's, and where a node has a fingerprint and the tensors another.
    """
    surveys = dict(known or {})
    surveys |= {n.name: survey(n.name, found.published[n.name]) for n in found.nodes if n.name not in surveys}
    for node in found.nodes:
        if node.fingerprint not in (None, surveys[node.name].fingerprint):
            raise SourceError(
                f"source {node.name!r} at {found.directories[node.name]} is not the one of the recipe: expected the "
                f"fingerprint {node.fingerprint}, got {surveys[node.name].fingerprint}"
            )
    doubts: tuple[str, ...] = ()
    aligned = found.aligned
    if found.base and not known:
        merged = frozenset(name for name, place in found.locations().items() if place is not None)
        doubts = check_kinship(aligned.tensors, found.base.name, found.rules.allow_other_base, merged)
    wanted = found.family.wanted(None)
    own = {name: settings_digest(directory, wanted) for name, directory in aligned.overlay.own.items()}
    marked = {
        node.name: replace(node, fingerprint=surveys[node.name].fingerprint, settings=own.get(node.name))
        for node in found.nodes
    }
    warnings = (*found.warnings, *doubts, *aligned.left_out)
    for warning in warnings if not known else ():
        logger.warning("%s", warning)
    return OpenSources(
        models=tuple(marked[model.name] for model in found.models),
        base=marked.get(BASE),
        directories=found.directories,
        tensors=aligned.tensors,
        files_from=aligned.files_from,
        overlay=aligned.overlay,
        copied=aligned.copied.union(*(each.integers for each in surveys.values())),
        paths=found.paths,
        warnings=warnings,
        surveys=surveys,
        weights=found.weights,
        settings=found.settings,
        wanted=wanted,
        adapters=found.adapters,
    )


def sources_by_headers(found: FoundSources) -> OpenSources:
    """Sources of which no number is read: nothing is known of what is not finite, and of whether they are related.

    Raises SourceError for weights that are parts of quantised ones, which their names and types tell.
    """
    return read_sources(found, {node.name: _by_types(node.name, found.published[node.name]) for node in found.nodes})


def _by_types(name: str, source: TensorSource) -> Survey:
    """What types alone tell; what an adapter changes is floating-point numbers."""
    integers = set()
    for tensor_name, tensor in _mapped(source):
        check_plain(name, tensor_name, tensor)
        if not tensor.is_floating_point():
            integers.add(tensor_name)
    return Survey(UNREAD, frozenset(integers))


def stored_types(source: TensorSource) -> dict[str, str]:
    """By name the types of tensors, but of those that an adapter changes."""
    return {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in _mapped(source)}


def _mapped(source: TensorSource) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors as they are stored, mapped and not read; without those that an adapter changes."""
    changed = source.changed if isinstance(source, Changed) else frozenset()
    stored = source.stored if isinstance(source, Converted) else source
    for name in sorted(source.shapes.keys() - changed):
        yield name, stored.read(name)


def open_sources(
    models: tuple[Checkpoint, ...],
    base: Checkpoint | None,
    family: Family,
    rules: Rules = STRICT,
    warnings: tuple[str, ...] = (),
    layers_only: str | None = None,
    pinned: Mapping[str, Mapping[str, str]] = NOTHING,
) -> OpenSources:
    """Find and read sources, see `find_sources` and `read_sources`."""
    return read_sources(find_sources(models, base, family, rules, warnings, layers_only, pinned))


def published_sources(
    nodes: Sequence[Checkpoint],
    family: OpensSources,
    pinned: Mapping[str, Mapping[str, str]] = NOTHING,
    known: Mapping[str, Path] = NOWHERE,
    adapters: Mapping[str, Path] | None = None,
) -> tuple[dict[str, Path], dict[str, Path], dict[str, TensorSource]]:
    """By name where the checkpoints are, the directories that describe them, and what they hold, as published.

    A single file is described by the directory that its `config` names, else by the first one among the checkpoints.
    Raises SourceError for one that is not there.
    """
    paths = places(nodes, family, pinned, known)
    adapters = adapter_places(nodes) if adapters is None else adapters
    directories = {node.name: _directory(node, paths) for node in nodes}
    for directory in sorted(set(directories.values())):
        check_files(directory)
    return (
        paths,
        directories,
        {n.name: _open(n, family, paths[n.name], directories[n.name], adapters.get(n.name)) for n in nodes},
    )


def _directory(node: Checkpoint, paths: Mapping[str, Path]) -> Path:
    if paths[node.name].is_dir():
        return paths[node.name]
    known = [locate(node.config, wanted=CONFIGURATIONS)] if node.config else [p for p in paths.values() if p.is_dir()]
    if not known or not known[0].is_dir():
        raise SourceError(
            f"source {node.name!r}: a single file needs a directory that says what it holds; expected one as "
            f"model.sources.{node.name}.config, or another source that is a directory, got {node.config!r}"
        )
    return known[0]


def _open(node: Checkpoint, family: OpensSources, path: Path, directory: Path, adapter: Path | None) -> TensorSource:
    tensors = family.open(path, directory, node.variant)
    if adapter is not None:
        tensors = family.adapted(tensors, adapter)
    return Converted(tensors, parse_dtype(node.dtype)) if node.dtype else tensors


def parse_dtype(name: str, key: str = "dtype", otherwise: str = "null") -> torch.dtype:
    """The floating-point type called `name`; ValueError for others, with what else may stand at `key`."""
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in types:
        raise ValueError(f"{key}: expected {otherwise} or one of {', '.join(types)}, got {name!r}")
    return types[name]
