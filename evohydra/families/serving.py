"""Models that an inference engine runs instead of transformers: a recipe goes in, answers come out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from evohydra.families import LiveModel
from evohydra.merging.engine import Engine
from evohydra.recipe import Merge, Node, Stack

PATHS = "paths run on transformers: choose backend=transformers, or a merge without a path"


class EngineError(RuntimeError):
    """An inference engine that has failed for reasons of the machine; it is not asked again."""


@dataclass(frozen=True)
class Answer:
    """The tokens of an answer, with the one that ended it, if any; whether it was cut at the limit."""

    tokens: tuple[int, ...]
    at_limit: bool


class TextEngine(Protocol):
    """How a worker runs a language model: it becomes the model of a recipe, says how likely texts are, and writes.

    context: tokens that a text and its answer may have together. seconds, tokens: spent in all calls so far.
    Methods raise EngineError where the engine itself fails.
    """

    context: int
    seconds: float
    tokens: int

    def become(self, node: Node, engine: Engine) -> None:
        """Make it the model that `node` describes, and forget all that it has kept of the model before.

        Raises MergeError where a merged tensor is not finite, and ValueError where a method refuses its parameters; the
        next recipe can follow.
        """
        ...

    def log_probabilities(self, texts: Sequence[Sequence[int]]) -> list[list[tuple[float, bool]]]:
        """For each text, and each of its tokens but the first: its log-probability, and whether it is the largest."""
        ...

    def answers(
        self, prompts: Sequence[Sequence[int]], *, limit: int, stop: Sequence[str], ends: Sequence[int], penalty: float
    ) -> list[Answer]:
        """The greedy answer to each prompt, of at most `limit` tokens, up to a token of `ends` or a string of `stop`.

        penalty: of repetition, as in transformers; 1: none.
        """
        ...

    def not_numbers(self) -> tuple[int, int]:
        """Predictions since the last call whose logits were not numbers, and how many there were in all."""
        ...


class AdapterEngine(TextEngine, Protocol):
    """An engine that can run merges of adapters as adapters of the base."""

    def become_adapter(self, node: Merge, engine: Engine, ahead: Sequence[Merge] = ()) -> None:
        """Make it the base with the adapter that `node` is; `ahead` come next, and are asked the same."""
        ...


class Served:
    """The live model of a worker whose recipes an engine runs.

    outline: the model in transformers without its weights (on the device `meta`), for its configuration.
    whole: makes the model in transformers. It is made again where something asks for module or parameters: to hold the
    winner against its files, for example. It has then the weights of the recipe that the engine serves. by_adapters:
    the engine, where genomes are to be run as adapters.
    """

    def __init__(
        self,
        outline: torch.nn.Module,
        tokenizer: object,
        engine: TextEngine,
        device: torch.device,
        dtype: torch.dtype,
        whole: Callable[[], LiveModel],
        by_adapters: AdapterEngine | None = None,
    ) -> None:
        self._by_adapters = by_adapters
        self.runs_adapters = by_adapters is not None
        self.outline, self.engine, self.device, self.dtype = outline, engine, device, dtype
        self._tokenizer, self._whole = tokenizer, whole
        self._twin: LiveModel | None = None
        self._now: tuple[Node, Engine] | None = None
        self._of_twin: Node | None = None

    @property
    def tokenizer(self) -> object:
        """The model's tokenizer."""
        return self._tokenizer

    @property
    def module(self) -> torch.nn.Module:
        """The model in transformers, with the weights of the present recipe."""
        return self._in_transformers().module

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """Its parameters by checkpoint name, see `LiveModel`."""
        return self._in_transformers().parameters

    def _in_transformers(self) -> LiveModel:
        if self._twin is None:
            self._twin = self._whole()
        if self._now is not None and self._of_twin != self._now[0]:
            self._of_twin = None  # a merge that fails halfway leaves no model
            self._twin.become(*self._now)
            self._of_twin = self._now[0]
        return self._twin

    def become(self, node: Node, engine: Engine) -> None:
        """Let the engine serve the model that `node` describes, see `TextEngine.become`."""
        if isinstance(node, Stack):
            raise ValueError(PATHS)
        self._now = None
        self.engine.become(node, engine)
        self._now = (node, engine)

    def become_adapter(self, node: Merge, engine: Engine, ahead: Sequence[Merge] = ()) -> None:
        """Let the engine serve a genome as an adapter, see `AdapterEngine.become_adapter`."""
        assert self._by_adapters is not None
        self._now = None
        self._by_adapters.become_adapter(node, engine, ahead)
        self._now = (node, engine)

    def expect(self, recipes: Sequence[Node]) -> None:
        """Nothing is shared between recipes."""
