"""Recipes: what is merged how, as frozen data with one digest in every process."""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

# Of methods whose module was not called like them when the first recipe files were written.
FIRST_MODULES = {
    "breadcrumbs_ties": "breadcrumbs", "dare_linear": "dare", "dare_ties": "dare", "della_linear": "della",
    "iso_c": "iso", "iso_cts": "iso", "ramplus_tl": "ram", "tsv_m": "tsv",
}  # fmt: skip
Parameter = float | int | bool | str | tuple[float, ...]
FORMAT = 2  # of recipe files; 1 merged in float32 whatever the type of the sources


@dataclass(frozen=True)
class Checkpoint:
    """A model as it was published: where it is, and the hash of what it holds.

    `path` is a hub id, a directory, or `zoo://<name>` for a model that ships with evohydra; `fingerprint` is the
    SHA-256 of its tensors (see `checkpoints.fingerprint`) with `adapter` merged in and converted to `dtype`, if given.
    `variant` and `config` are of diffusion models: which of its files are read ("fp16"), and the diffusers folder that
    says what a single file holds. `settings` is a digest of its configuration where that is not the merge's, so that
    the source by itself is another model than a merge of the same weights.
    """

    name: str
    path: str
    revision: str | None = None
    adapter: str | None = None
    dtype: str | None = None
    fingerprint: str | None = None
    variant: str | None = None
    config: str | None = None
    settings: str | None = None

    def to_dict(self) -> dict[str, object]:
        """The node as JSON data."""
        later = {"variant", "config", "settings"}  # than the first recipe files, which have kept their digests
        return {"node": "checkpoint", **{k: v for k, v in self.__dict__.items() if k not in later or v is not None}}


@dataclass(frozen=True)
class Group:
    """Tensors that share their genes: `parameters` holds a scalar, or one number for each source model."""

    name: str
    tensors: tuple[str, ...]
    parameters: Mapping[str, Parameter]


@dataclass(frozen=True)
class Merge:
    """`models` merged by `method`, group by group; `options` hold for all groups.

    `method` is a name of `evohydra.merging.methods`, or "package.module:function" for one from outside.

    Tensors that no group names are copied from the base, or without a base from the first model.
    """

    method: str
    base: "Node | None"
    models: tuple["Node", ...]
    groups: tuple[Group, ...]
    options: Mapping[str, Parameter] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """The node and all below it as JSON data."""
        return {
            "node": "merge",
            "method": self.method,
            "base": self.base.to_dict() if self.base else None,
            "models": [model.to_dict() for model in self.models],
            "groups": [
                {"name": group.name, "tensors": list(group.tensors), "parameters": _plain(group.parameters)}
                for group in self.groups
            ],
            "options": _plain(self.options),
        }


@dataclass(frozen=True)
class Hop:
    """One step of a path: layer `layer` of source number `source`, both from 0, and its scale (see `Stack`)."""

    source: int
    layer: int
    scale: float = 1.0


@dataclass(frozen=True)
class LayerNames:
    """How the tensors of an architecture's layers are named, so that a path can be written as a checkpoint.

    layers: what comes before the number of a layer, "model.layers". The others are regular expressions for whole names
    of tensors. embeddings: the input embeddings (and positions, where they are added to them). attention, mlp: inside
    of a layer, the tensors that are multiplied where the output of that branch is to be. offset: what is added to those
    two when they are used (1 in the norms of Gemma). readers: the matrices that read the stream without a norm before
    them (those of Olmo2), and so see its length.
    """

    layers: str
    embeddings: str
    attention: str
    mlp: str
    offset: float = 0.0
    readers: str = ""


@dataclass(frozen=True)
class Stack:
    """A path through the layers of `sources` (arXiv 2403.13187, section 3.2), the same for every token.

    The first source gives all that is outside of layers: embeddings, final norm, head and tokenizer. `scaling` says
    what the scale of a hop multiplies: "branch", the MLP output of the hop before it (of the first hop the embeddings)
    as it enters the residual stream, which the released models do; "stream", the whole hidden state.
    """

    sources: tuple["Node", ...]
    hops: tuple[Hop, ...]
    layout: LayerNames
    scaling: str = "branch"

    def __post_init__(self) -> None:
        if self.scaling not in SCALINGS:
            raise ValueError(f"scaling: expected one of {', '.join(SCALINGS)}, got {self.scaling!r}")
        if not self.hops:
            raise ValueError("a path needs one hop or more")
        for number, hop in enumerate(self.hops):
            if not 0 <= hop.source < len(self.sources) or hop.layer < 0:
                raise ValueError(f"hop {number}: there is no layer {hop.layer} of source {hop.source}")
            if not math.isfinite(hop.scale):
                raise ValueError(f"hop {number}: expected a finite scale, got {hop.scale}")

    def to_dict(self) -> dict[str, object]:
        """The node and all below it as JSON data; a hop is [source, layer, scale]."""
        return {
            "node": "stack",
            "sources": [source.to_dict() for source in self.sources],
            "hops": [[hop.source, hop.layer, hop.scale] for hop in self.hops],
            "layout": dict(self.layout.__dict__),
            "scaling": self.scaling,
        }


Node = Checkpoint | Merge | Stack
SCALINGS = ("branch", "stream")


def _plain(parameters: Mapping[str, Parameter]) -> dict[str, object]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in parameters.items()}


def _parameters(data: Mapping[str, Any]) -> dict[str, Parameter]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def from_dict(data: Mapping[str, Any]) -> Node:
    """The inverse of `to_dict`; ValueError where `data` is no recipe."""
    try:
        if data["node"] == "checkpoint":
            return Checkpoint(**{key: value for key, value in data.items() if key != "node"})
        if data["node"] == "merge":
            return Merge(
                method=_named(data["method"]),
                base=from_dict(data["base"]) if data["base"] is not None else None,
                models=tuple(from_dict(model) for model in data["models"]),
                groups=tuple(
                    Group(group["name"], tuple(group["tensors"]), _parameters(group["parameters"]))
                    for group in data["groups"]
                ),
                options=_parameters(data["options"]),
            )
        if data["node"] == "stack":
            return Stack(
                sources=tuple(from_dict(source) for source in data["sources"]),
                hops=tuple(Hop(int(source), int(layer), float(scale)) for source, layer, scale in data["hops"]),
                layout=LayerNames(**data["layout"]),
                scaling=data["scaling"],
            )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a recipe: {error}") from error
    raise ValueError(f"not a recipe: expected node 'checkpoint', 'merge' or 'stack', got {data['node']!r}")


def digest(node: Node) -> str:
    """SHA-256 of the recipe, the same in every process and for equal recipes only."""
    return hashlib.sha256(json.dumps(_as_first_written(node.to_dict()), sort_keys=True).encode()).hexdigest()


def _named(method: object) -> str:
    """The name of a method, which the first recipe files gave as the place of its function."""
    if not isinstance(method, str):
        raise ValueError(f"not a recipe: expected the name of a method, got {method!r}")
    place = re.fullmatch(r"evohydra\.methods\.\w+:(\w+)", method)
    return place[1] if place else method


def _as_first_written(data: object) -> object:
    """The content of a recipe with methods called as in the first recipe files.

    Digests, and the random masks that come from them, have to stay what they were.
    """
    if isinstance(data, list):
        return [_as_first_written(each) for each in data]
    if not isinstance(data, dict):
        return data
    content = {key: _as_first_written(value) for key, value in data.items()}
    if data.get("node") == "merge" and ":" not in data["method"]:
        content["method"] = f"evohydra.methods.{FIRST_MODULES.get(data['method'], data['method'])}:{data['method']}"
    return content


def with_checkpoints(node: Node, known: Mapping[str, Checkpoint]) -> Node:
    """The same recipe over the checkpoints of `known`, by name."""
    if isinstance(node, Checkpoint):
        return known[node.name]
    if isinstance(node, Stack):
        return replace(node, sources=tuple(with_checkpoints(source, known) for source in node.sources))
    base = with_checkpoints(node.base, known) if node.base else None
    return replace(node, base=base, models=tuple(with_checkpoints(model, known) for model in node.models))


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below `node`, the base of a merge first."""
    if isinstance(node, Checkpoint):
        return ()
    if isinstance(node, Stack):
        return node.sources
    return (*((node.base,) if node.base else ()), *node.models)


def merges_something(node: Node) -> bool:
    """Whether there is a merge in the recipe: its checkpoints must then hold the same tensors."""
    return isinstance(node, Merge) or any(map(merges_something, children(node)))


def checkpoints(node: Node) -> Iterator[Checkpoint]:
    """Every checkpoint below `node`, bases too, each as often as it is named."""
    if isinstance(node, Checkpoint):
        yield node
    for child in children(node):
        yield from checkpoints(child)
