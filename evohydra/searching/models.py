"""The models that a winner is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from evohydra.recipe import Node


@dataclass(frozen=True)
class Models:
    """What a winner is compared with; `files_from` names the source that gives configuration and tokenizer.

    masks: of baselines with random masks the same merge by mask seed, its own first.
    """

    sources: Mapping[str, Node]
    base: Node | None
    uniform: Node | None
    baselines: Mapping[str, Node]
    files_from: str
    masks: Mapping[str, Mapping[int, Node]] = field(default_factory=dict)

    def all(self) -> dict[str, Node]:
        """By name; the order is that of tables."""
        others = {"uniform": self.uniform, "base": self.base}
        return {**self.sources, **self.baselines, **{name: node for name, node in others.items() if node is not None}}
