"""mergekit configurations as recipes, as far as parameter space goes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath

import torch

from evohydra.families import Family, Rules
from evohydra.families.declared import BASE
from evohydra.families.names import FAMILIES
from evohydra.families.sources import published_sources
from evohydra.files import Plain
from evohydra.mergekit import stacks
from evohydra.mergekit.chat_templates import chat_template
from evohydra.mergekit.configuration import checked, warn_of_ignored
from evohydra.mergekit.documents import documents
from evohydra.mergekit.merged_slices import MergedSlices
from evohydra.mergekit.pieces import Piece, in_place, pieces
from evohydra.mergekit.settings import PASSTHROUGH, Settings, Slice, parameters_known
from evohydra.mergekit.vocabulary import vocabulary
from evohydra.mergekit.writer import INPUT, METHODS
from evohydra.merging.checkpoints import TensorSource
from evohydra.merging.finding import at_revision
from evohydra.recipe import FORMAT, Checkpoint, Group, LayerNames, Merge, Node, Parameter, Stack, merges_something
from evohydra.spaces.grouping import EMBEDDINGS, Location

LINEAR = "linear"


def read(text: str, family: Family, shard_bytes: int) -> dict[str, object]:
    """The recipe file of a mergekit YAML with one merge in it, see `read_document`; ValueError for several."""
    found = documents(text)
    if len(found) > 1:
        raise ValueError(f"expected one merge in a file, got {len(found)} documents")
    return read_document(found[0].config, family, shard_bytes)


def source_references(document: Plain) -> dict[str, str]:
    """The models of a mergekit configuration by the names that they get as sources; no file of theirs is looked for."""
    return {name: reference for reference, name in _named(pieces(checked(document)), document)[0].items()}


def read_document(
    document: Plain, family: Family, shard_bytes: int, moved: Mapping[str, str] | None = None
) -> dict[str, object]:
    """The recipe file of a mergekit configuration; ValueError, naming the key, for what has no counterpart here.

    `moved` says where sources are now, by name (see `source_references`): a path, or OWNER/NAME@REVISION.

    The models are located (and downloaded where they must be) for the names of the tensors that they have in common.
    What is written has mergekit's out_dtype or dtype, without either the smallest type that holds those of all models.
    Configuration, generation configuration and tokenizer are those of base_model, without one the first model's; the
    numbers of special tokens are those of the tokenizer.
    """
    config = checked(document)
    method_name = str(config["merge_method"])
    found = pieces(config)
    warn_of_ignored(config, method_name, parameters_known(method_name, METHODS[method_name]))
    what = _Configuration.of(config, found, family, moved or {})
    words = vocabulary(config, {reference: node.name for reference, node in what.nodes.items()}, what.donor)
    donor = what.nodes[what.donor].name
    matched = words.tokenizer != "same"
    template = chat_template(config, [what.directories[node.name] for node in what.nodes.values()])
    rules = Rules(
        tokenizer=words.tokenizer,
        pad_vocabulary_to=words.multiple,
        tokens_only=matched,
        tokens=words.rows,
        config=donor,
        allow_other_base=True,
        allow_other_splitting=True,
    )
    recipe = what.recipe(rules)
    return {
        "format": FORMAT,
        "family": FAMILIES.name_of(family),
        "files_from": donor,
        "config": donor,
        "tokenizer": words.tokenizer,
        "pad_vocabulary_to": words.multiple,
        "tokens_only": matched,
        **({"tokens": {token: asdict(row) for token, row in words.rows.items()}} if words.rows else {}),
        **({"chat_template": template} if template is not None else {}),
        "dtype": config.get("dtype"),
        "out_dtype": config.get("out_dtype")
        or str(config.get("dtype") or _common_dtype(what.published)).removeprefix("torch."),
        "shard_bytes": shard_bytes,
        "recipe": recipe.to_dict(),
    }


@dataclass(frozen=True)
class _Configuration:
    """A configuration, its pieces, and the models that it names: as nodes by reference, located and opened.

    donor: the reference of the model whose configuration the merge has.
    """

    config: Plain
    family: Family
    pieces: Sequence[Piece]
    nodes: Mapping[str, Checkpoint]
    donor: str
    directories: Mapping[str, Path]
    published: Mapping[str, TensorSource]

    @classmethod
    def of(cls, config: Plain, found: Sequence[Piece], family: Family, moved: Mapping[str, str]) -> "_Configuration":
        named, donor = _named(found, config)
        nodes = {reference: _checkpoint(name, reference, moved.get(name)) for reference, name in named.items()}
        _, directories, published = published_sources(list(nodes.values()), family)
        return cls(config, family, found, nodes, donor, directories, published)

    @property
    def method(self) -> str:
        return str(self.config["merge_method"])

    @property
    def base_name(self) -> str | None:
        """The name of the base that takes no part in the merge, where there is one."""
        return next((node.name for node in self.nodes.values() if node.name == BASE), None)

    def depth(self, reference: str) -> int:
        return self.family.depth(self.directories[self.nodes[reference].name])

    def recipe(self, rules: Rules) -> Node:
        if self.config.get("slices") and self.method == PASSTHROUGH:
            layers = stacks.one_source_each(self.config["slices"])
            if stacks.is_path(layers, {each.model: self.depth(each.model) for each in layers}):
                return self._path(layers, rules)
        first = self.pieces[0].models[0]
        if self.method == PASSTHROUGH or in_place(self.pieces, self.depth(first)):
            return self._merge(rules)
        return self._merged_slices(rules)

    def _path(self, slices: Sequence[stacks.OneSource], rules: Rules) -> Stack:
        """The path of a passthrough whose layers are not where they were."""
        depths = {reference: self.depth(reference) for reference in self.nodes}
        deepest = self.nodes[max(depths, key=lambda reference: depths[reference])].name
        edges_merged = rules.tokenizer != "same" or rules.pad_vocabulary_to is not None or bool(rules.tokens)
        if edges_merged and len(set(depths.values())) == 1:
            aligned = self.family.align(self.directories, self.published, self.base_name, rules)
        else:
            allowing = Rules(config="allow", allow_other_splitting=True)
            aligned = self.family.align_layers(self.directories, self.published, deepest, allowing)
        tensors = aligned.tensors
        locations, layout = self._layout(deepest, tuple(tensors[deepest].shapes))
        donor = self.nodes[self.donor]
        path = stacks.stack(
            self.config, slices, self.nodes, donor, {deepest: tensors[deepest]}, locations, layout, edges_merged
        )
        if merges_something(path) and len(set(depths.values())) > 1:
            raise ValueError(
                f"slices: models of {sorted(set(depths.values()))} layers are stacked only without scales, with the "
                f"edges and the tokenizer of the first one ({self.nodes[slices[0].model].name})"
            )
        return path

    def _layout(self, name: str, tensors: tuple[str, ...]) -> tuple[dict[str, Location | None], LayerNames]:
        directory = self.directories[name]
        return self.family.locations(directory, tensors), self.family.layout(directory, tensors)

    def _merged_slices(self, rules: Rules) -> Stack:
        """A path through a merge for each slice."""
        depths = {reference: self.depth(reference) for reference in self.nodes}
        if len(set(depths.values())) > 1:
            raise ValueError(f"slices: expected models of the same number of layers, got {depths}")
        (depth,) = set(depths.values())
        for piece in self.pieces:
            for layers in (piece.ranges or {}).values():
                if layers[1] > depth:
                    raise ValueError(
                        f"slices: expected layers below {depth}, as many as the models have, got {list(layers)}"
                    )
        aligned = self.family.align(self.directories, self.published, self.base_name, rules)
        donor = self.nodes[self.donor]
        shapes = aligned.tensors[donor.name].shapes
        locations, layout = self._layout(donor.name, tuple(shapes))
        return MergedSlices(self.config, self.pieces, self.nodes, locations, layout).stack(donor)

    def _merge(self, rules: Rules) -> Merge:
        """A merge of layers in their places."""
        models = tuple(dict.fromkeys(model for piece in self.pieces for model in piece.models))
        base = self.pieces[0].base
        base_node = self.nodes[base] if base is not None and base not in models else None
        tensors = self.family.align(self.directories, self.published, self.base_name, rules).tensors
        first = self.nodes[models[0]].name
        shapes = tensors[first].shapes
        copied = frozenset(name for name in shapes if not tensors[first].read(name).is_floating_point())
        locations = self.family.locations(self.directories[first], tuple(shapes), copied)
        # Slices of one source each: mergekit's passthrough takes another one for each, which is linear with a weight of
        # 0 for all others.
        stacked = self.method == PASSTHROUGH and len(models) > 1
        slices = [self._slice(piece, self.depth(models[0])) for piece in self.pieces]
        counterpart = METHODS[LINEAR if stacked else self.method]
        groups: dict[str, tuple[dict[str, Parameter], list[str]]] = {}
        for tensor, location in locations.items():
            if location is not None:
                settings = Settings(self.config, models, tensor, *_place(location, slices))
                parameters = settings.stacked() if stacked else settings.parameters(self.method, counterpart)
                groups.setdefault(repr(sorted(parameters.items())), (parameters, []))[1].append(tensor)
        if self.donor not in models and self.nodes[self.donor] != base_node:
            if base_node is not None or METHODS[self.method].base != INPUT:
                raise ValueError(f"base_model: expected one of the models, or the base of the slices, got {self.donor}")
            base_node = self.nodes[self.donor]  # which gives files, and takes no part
        return Merge(
            method=counterpart.method,
            base=base_node,
            models=tuple(self.nodes[model] for model in models),
            groups=tuple(Group(f"group {i}", tuple(names), p) for i, (p, names) in enumerate(groups.values())),
            options={"mask_seed": 0},
        )

    def _slice(self, piece: Piece, depth: int) -> Slice:
        start, stop = piece.layers if piece.ranges is not None else (0, depth)
        return Slice(start, stop, piece.sources, piece.parameters)


def _common_dtype(sources: Mapping[str, TensorSource]) -> torch.dtype:
    """The smallest type that holds the floating-point tensors of all sources, as they were published."""
    common: torch.dtype | None = None
    for source in sources.values():
        for name in source.shapes:
            tensor = source.read(name)
            if tensor.is_floating_point():
                common = tensor.dtype if common is None else torch.promote_types(common, tensor.dtype)
    return common or torch.float32


def _names(references: Sequence[str]) -> dict[str, str]:
    """A name for each model: the last part of its path, numbered where two have the same."""
    names: dict[str, str] = {}
    for model in references:
        name = PurePath(model.split("+")[0].split("@")[0]).name
        taken = [*names.values(), BASE, "same", "union"]
        names[model] = name if name not in taken else f"{name}-{sum(n.startswith(name) for n in taken) + 1}"
    return names


def _named(found: Sequence[Piece], config: Plain) -> tuple[dict[str, str], str]:
    """A name for each model by its reference, and the reference of the model whose configuration the merge has.

    A single base that takes no part in the merge is called BASE.
    """
    merged = list(dict.fromkeys(model for piece in found for model in piece.models))
    bases = list(dict.fromkeys(p.base for p in found if p.base is not None and p.base not in merged))
    donor = str(config.get("base_model") or next((p.base for p in found if p.base is not None), merged[0]))
    named = _names([*merged, *(bases if len(bases) > 1 else []), *({donor} - {*merged, *bases})])
    return named | {base: BASE for base in bases if base not in named}, donor


def _checkpoint(name: str, reference: str, place: str | None) -> Checkpoint:
    """The model of a reference, or of a place to which it has moved."""
    path, _, adapter = reference.partition("+")
    path, _, revision = path.partition("@")
    if place is not None:
        path, revision = at_revision(place)[0], at_revision(place)[1] or ""
    return Checkpoint(name, path, revision or None, adapter or None)


def _place(location: Location, slices: Sequence[Slice]) -> tuple[Slice, float]:
    """The slice of a tensor and its place t in [0, 1] there, for gradients; t is 0 at the edges, as in mergekit."""
    if location.layer is None:
        return (slices[0] if location.module == EMBEDDINGS else slices[-1]), 0.0
    at = next(each for each in slices if each.start <= location.layer < each.stop)
    length = at.stop - at.start
    return at, (location.layer - at.start) / (length - 1) if length > 1 else 1.0
