"""Recipes: what is merged how, as frozen data with one digest in every process."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, get_args

from evohydra.checks import Natural, Words, check_entries, check_name, shown
from evohydra.checks.patterns import check_pattern
from evohydra.files import Plain

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
    the source by itself is another model than a merge of the same weights. `convert` is "weights_only" where pickles
    may be converted if there are no safetensors.
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
    convert: str | None = None

    def to_dict(self) -> dict[str, object]:
        """The node as JSON data."""
        later = {"variant", "config", "settings", "convert"}  # than the first recipe files: those keep their digests
        return {"node": "checkpoint", **{k: v for k, v in self.__dict__.items() if k not in later or v is not None}}


@dataclass(frozen=True)
class Group:
    """Tensors that share their genes: scalars or a number for each source, and `method` where it is not the merge's."""

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
        if not 0 < len(self.hops) <= MOST_HOPS:
            raise ValueError(f"a path needs one hop or more, at most {MOST_HOPS}, got {len(self.hops)}")
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
Scaling = Literal["branch", "stream"]
SCALINGS = get_args(Scaling)
MOST_LEVELS = 32  # of recipes in recipes
MOST_HOPS = 10_000
Hops = Annotated[Sequence[tuple[Natural, Natural, float]], Words("a list of [source, layer, scale]")]
Values = Mapping[str, float | int | bool | str | Sequence[float]]


def _plain(parameters: Mapping[str, Parameter]) -> dict[str, object]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in parameters.items()}


def _parameters(data: Plain) -> dict[str, Parameter]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def from_dict(data: object, where: str = "recipe", level: int = 0) -> Node:
    """The inverse of `to_dict`.

    ValueError, which says at which place below `where`, for keys that are missing or not known, for values of other
    types and for recipes in recipes deeper than `MOST_LEVELS`.
    """
    if level > MOST_LEVELS:
        raise ValueError(f"{where[:200]}...: expected at most {MOST_LEVELS} recipes in each other, got more")
    kind = data.get("node") if isinstance(data, Mapping) else None
    reader = READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise ValueError(f"{where}: not a recipe: expected node {', '.join(READERS)}, got {shown(kind or data)}")
    return reader(data, where, level + 1)


def _checkpoint(data: object, where: str, level: int) -> Checkpoint:
    text = str | None
    keys = ("revision", "adapter", "dtype", "fingerprint", "variant", "config", "settings")
    optional = {**dict.fromkeys(keys, text), "convert": Literal["weights_only"] | None}
    entries = check_entries(where, data, {"node": str, "name": str, "path": str}, optional)
    check_name(entries["name"], f"{where}.name")
    return Checkpoint(**{key: value for key, value in entries.items() if key != "node"})  # type: ignore[arg-type]


def _merge(data: object, where: str, level: int) -> Merge:
    nodes = {"base": object, "models": Sequence[object], "groups": Sequence[object]}
    entries: Plain = check_entries(where, data, {"node": str, "method": str, **nodes, "options": Values})
    if not entries["models"]:
        raise ValueError(f"{where}.models: expected one model or more, got none")
    base = entries["base"]
    return Merge(
        method=_named(entries["method"]),
        base=from_dict(base, f"{where}.base", level) if base is not None else None,
        models=_nodes(entries["models"], f"{where}.models", level),
        groups=tuple(_group(each, f"{where}.groups[{n}]") for n, each in enumerate(entries["groups"])),
        options=_parameters(entries["options"]),
    )


def _group(data: object, where: str) -> Group:
    kinds = {"name": str, "tensors": Sequence[str], "parameters": Values}
    entries: Plain = check_entries(where, data, kinds)
    return Group(entries["name"], tuple(entries["tensors"]), _parameters(entries["parameters"]))


def _stack(data: object, where: str, level: int) -> Stack:
    kinds = {"node": str, "sources": Sequence[object], "hops": Hops, "layout": object, "scaling": Scaling}
    entries: Plain = check_entries(where, data, kinds)
    patterns = ("embeddings", "attention", "mlp")
    of_layout = {"layers": str, **dict.fromkeys(patterns, str)}
    layout: Any = check_entries(f"{where}.layout", entries["layout"], of_layout, {"offset": float, "readers": str})
    for key in (*patterns, "readers"):
        check_pattern(layout.get(key, ""), f"{where}.layout.{key}")
    return Stack(
        sources=_nodes(entries["sources"], f"{where}.sources", level),
        hops=tuple(Hop(source, layer, float(scale)) for source, layer, scale in entries["hops"]),
        layout=LayerNames(**layout),
        scaling=entries["scaling"],
    )


def _nodes(data: Sequence[object], where: str, level: int) -> tuple[Node, ...]:
    return tuple(from_dict(each, f"{where}[{number}]", level) for number, each in enumerate(data))


READERS: Mapping[str, Callable[[object, str, int], Node]] = {
    "checkpoint": _checkpoint,
    "merge": _merge,
    "stack": _stack,
}


def digest(node: Node) -> str:
    """SHA-256 of the recipe, the same in every process and for equal recipes only."""
    return hashlib.sha256(json.dumps(_as_first_written(node.to_dict()), sort_keys=True).encode()).hexdigest()


def _named(method: str) -> str:
    """The name of a method, which the first recipe files gave as the place of its function."""
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


def with_checkpoints(node: Node, known: Mapping[str, Node]) -> Node:
    """The same recipe over the checkpoints (or recipes) of `known`, by the names of its own."""
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
