"""Recipes: what is merged how, as frozen data with one digest in every process."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Parameter = float | int | bool | str | tuple[float, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A model as it was published: where it is, and the hash of what it holds.

    `path` is a hub id, a directory, or `zoo://<name>` for a model that ships with evohydra; `fingerprint` is the
    SHA-256 of its tensors (see `checkpoints.fingerprint`) with `adapter` merged in and converted to `dtype`, if given.
    """

    name: str
    path: str
    revision: str | None = None
    adapter: str | None = None
    dtype: str | None = None
    fingerprint: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The node as JSON data."""
        return {"node": "checkpoint", **self.__dict__}


@dataclass(frozen=True)
class Group:
    """Tensors that share their genes: `parameters` holds a scalar, or one number for each source model."""

    name: str
    tensors: tuple[str, ...]
    parameters: Mapping[str, Parameter]


@dataclass(frozen=True)
class Merge:
    """`models` merged by `method` ("package.module:function"), group by group; `options` hold for all groups.

    Tensors that no group names are copied from the base, or without a base from the first model.
    """

    method: str
    base: "Node | None"
    models: tuple["Node", ...]
    groups: tuple[Group, ...]
    options: Mapping[str, Parameter] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
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


Node = Checkpoint | Merge


def _plain(parameters: Mapping[str, Parameter]) -> dict[str, Any]:
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
                method=data["method"],
                base=from_dict(data["base"]) if data["base"] is not None else None,
                models=tuple(from_dict(model) for model in data["models"]),
                groups=tuple(
                    Group(group["name"], tuple(group["tensors"]), _parameters(group["parameters"]))
                    for group in data["groups"]
                ),
                options=_parameters(data["options"]),
            )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a recipe: {error}") from error
    raise ValueError(f"not a recipe: expected node 'checkpoint' or 'merge', got {data['node']!r}")


def digest(node: Node) -> str:
    """SHA-256 of the recipe, the same in every process and for equal recipes only."""
    return hashlib.sha256(json.dumps(node.to_dict(), sort_keys=True).encode()).hexdigest()


def with_checkpoints(node: Node, known: Mapping[str, Checkpoint]) -> Node:
    """The same recipe over the checkpoints of `known`, by name."""
    if isinstance(node, Checkpoint):
        return known[node.name]
    base = with_checkpoints(node.base, known) if node.base else None
    return replace(node, base=base, models=tuple(with_checkpoints(model, known) for model in node.models))


def checkpoints(node: Node) -> Iterator[Checkpoint]:
    """Every checkpoint below `node`, bases too, each as often as it is named."""
    if isinstance(node, Checkpoint):
        yield node
        return
    for child in (*((node.base,) if node.base else ()), *node.models):
        yield from checkpoints(child)
