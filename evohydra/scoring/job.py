"""What crosses the worker boundary: a recipe to score, its scores, and why there are none. Plain data alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evohydra.recipe import Node
from evohydra.scoring.benchmarks import Split

Examples = Mapping[str, Sequence[int]]  # for each benchmark, places in a split
Scores = Mapping[str, Sequence[float]]  # for each benchmark, example by example


@dataclass(frozen=True)
class Job:
    """A recipe to be scored on a split, or (`examples`) on those of its examples that are named for each benchmark."""

    recipe: Node
    split: Split
    examples: Examples | None = None


@dataclass(frozen=True)
class Evaluation:
    """Scores example by example for each benchmark, empty where `error` says why there are none.

    seconds: by part. tokens: how many went through the model, padding included. broken: what the answers on all
    benchmarks have that only a broken model's have. given_up: the error is the machine's and not the recipe's, which
    was tried again in vain while others were scored.
    """

    scores: Mapping[str, list[float]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    tokens: int = 0
    broken: str | None = None
    given_up: bool = False


class MachineError(RuntimeError):
    """A worker that could not score for a reason that says nothing about the recipe: memory, a device, a kill."""
