"""A recipe -> its merge in the live model -> scores for each benchmark; failures are kept with their reason."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from evohydra.families import LiveModel
from evohydra.merging.engine import Engine
from evohydra.recipe import Node
from evohydra.scoring.benchmarks import Asking, Benchmark, BenchmarkError, Split, TellsBroken

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Scores example by example for each benchmark, empty where `error` says why there are none.

    seconds: by part. tokens: how many went through the model, padding included. broken: what the answers on all
    benchmarks have that only a broken model's have.
    """

    scores: Mapping[str, list[float]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    tokens: int = 0
    broken: str | None = None


class Evaluator:
    """Evaluates recipes, one after the other, in one live model.

    `reference` is what people see first, where a benchmark asks them to compare.
    """

    def __init__(
        self, engine: Engine, live: LiveModel, benchmarks: Mapping[str, Benchmark], reference: Node | None = None
    ) -> None:
        self._engine, self._live, self._benchmarks = engine, live, benchmarks
        self._asking = {name: each for name, each in benchmarks.items() if isinstance(each, Asking) and each.asks}
        self._reference: tuple[Node, ...] = (reference,) if reference else ()
        self._expected: tuple[Node, ...] = ()
        self._referred: set[Split] = set()  # splits on which people have a reference
        self._clock = _ForwardClock(live)

    def expect(self, recipes: Sequence[Node]) -> None:
        """Tell which recipes will be evaluated next, in this order."""
        self._live.expect(recipes)
        self._expected = tuple(recipes)

    def __call__(self, recipe: Node, split: Split, examples: Mapping[str, Sequence[int]] | None = None) -> Evaluation:
        """The scores of `recipe` on `split`, or on those of its examples that `examples` names for each benchmark.

        What a bad genome can cause (a merge that is not finite, a model that cannot answer, memory that runs out) gives
        an evaluation with an error. A wrong configuration (BenchmarkError) and full disks are raised.
        """
        self._clock.seconds, self._clock.tokens = 0.0, 0
        start = merged = time.perf_counter()
        scores: dict[str, list[float]] = {}
        error, broken = None, []
        if self._asking and (self._expected or split not in self._referred):
            self._show(split, examples)
        try:
            self._live.become(recipe, self._engine)
            merged = time.perf_counter()
            for name, benchmark in self._benchmarks.items():
                chosen = None if examples is None else examples.get(name, ())
                if examples is None or chosen:
                    scores[name] = [float(score) for score in benchmark(self._live, split, chosen)]
                    broken.append(benchmark.broken() if isinstance(benchmark, TellsBroken) else None)
        except BenchmarkError:
            raise
        except (ArithmeticError, ValueError, RuntimeError) as reason:
            scores, error = {}, f"{type(reason).__name__}: {reason}"
        end = time.perf_counter()
        seconds = {"merge": merged - start, "evaluate": end - merged, "forward": self._clock.seconds}
        return Evaluation(
            scores,
            {part: round(value, 4) for part, value in seconds.items()},
            error,
            self._clock.tokens,
            "; ".join(each for each in broken if each) if broken and all(broken) else None,
        )

    def _show(self, split: Split, examples: Mapping[str, Sequence[int]] | None) -> None:
        """Let benchmarks that ask people see all recipes that are expected, so that the run stops once for them.

        Raises BenchmarkError while answers are missing. Recipes that cannot be shown are left to their evaluation.
        """
        for recipe in (*self._reference, *self._expected):
            try:
                self._live.become(recipe, self._engine)
                for name, benchmark in self._asking.items():
                    benchmark.show(self._live, split, None if examples is None else examples.get(name, ()))
            except BenchmarkError:
                raise
            except (ArithmeticError, ValueError, RuntimeError) as reason:
                logger.info("a recipe that cannot be shown to people: %s", reason)
        self._expected = ()
        self._referred.add(split)
        for benchmark in self._asking.values():
            benchmark.ask()


class _ForwardClock:
    """Seconds spent in the live model's forward passes, and the tokens that went through them."""

    def __init__(self, live: LiveModel) -> None:
        self.seconds, self.tokens = 0.0, 0
        self._started = 0.0
        self._cuda = live.device.type == "cuda"
        live.module.register_forward_pre_hook(self._start, with_kwargs=True)
        live.module.register_forward_hook(self._stop)

    def _start(self, _: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
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
