"""What a worker sees of its model's work, whoever computes: seconds, tokens, and logits that are not numbers."""

import time
from typing import Protocol

import torch

from evohydra.families import LiveModel
from evohydra.families.serving import Served, TextEngine
from evohydra.scoring.benchmarks.not_numbers import LogitsWatch


class Clock(Protocol):
    """Seconds of forward passes since `begin`, and the tokens that went through them."""

    @property
    def seconds(self) -> float:
        """Seconds."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens."""
        ...

    def begin(self) -> None:
        """Count from nothing."""
        ...


class Watch(Protocol):
    """Whether predictions since `begin` were numbers, see `LogitsWatch`."""

    def begin(self) -> None:
        """Forget what was counted."""
        ...

    def check(self) -> None:
        """FloatingPointError where some were not."""
        ...


def clock_of(live: LiveModel) -> Clock:
    """The clock of a model in transformers, or of an engine."""
    return EngineClock(live.engine) if isinstance(live, Served) else ForwardClock(live)


def watch_of(live: LiveModel) -> Watch:
    """The watch over the logits of a model in transformers, or of an engine."""
    return EngineWatch(live.engine) if isinstance(live, Served) else LogitsWatch(live.module)


class EngineClock:
    """What an engine has spent since `begin`."""

    def __init__(self, engine: TextEngine) -> None:
        self._engine = engine
        self.begin()

    def begin(self) -> None:
        """Count from nothing."""
        self._seconds, self._tokens = self._engine.seconds, self._engine.tokens

    @property
    def seconds(self) -> float:
        """Seconds that it has computed."""
        return self._engine.seconds - self._seconds

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers."""
        return self._engine.tokens - self._tokens


class EngineWatch:
    """What an engine has counted."""

    def __init__(self, engine: TextEngine) -> None:
        self._engine = engine

    def begin(self) -> None:
        """Forget what was counted."""
        self._engine.not_numbers()

    def check(self) -> None:
        """FloatingPointError where logits since `begin` were not numbers."""
        bad, seen = self._engine.not_numbers()
        if bad:
            raise FloatingPointError(f"the logits of {bad} of {seen} predictions are not numbers")


class ForwardClock:
    """Seconds spent in the live model's forward passes, and the tokens that went through them."""

    def __init__(self, live: LiveModel) -> None:
        self.begin()
        self._started = 0.0
        self._cuda = live.device.type == "cuda"
        live.module.register_forward_pre_hook(self._start, with_kwargs=True)
        live.module.register_forward_hook(self._stop)

    def begin(self) -> None:
        """Count from nothing."""
        self.seconds, self.tokens = 0.0, 0

    def _start(self, _: torch.nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        tokens = named.get("input_ids", inputs[0] if inputs else None)
        if isinstance(tokens, torch.Tensor) and not tokens.is_floating_point():  # latents are no tokens
            self.tokens += tokens.numel()
        self._started = self._now()

    def _stop(self, *_: object) -> None:
        self.seconds += self._now() - self._started

    def _now(self) -> float:
        if self._cuda:  # kernels run behind the caller's back
            torch.cuda.synchronize()
        return time.perf_counter()
