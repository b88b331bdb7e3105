"""A worker: all that touches tensors. Jobs go in, evaluations come out, and nothing of one job is left for the next."""

import functools
import gc
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from evohydra.families import Family, LiveModel
from evohydra.families.genome_adapters import RunsAdapters
from evohydra.families.serving import EngineError
from evohydra.families.sources import OpenSources
from evohydra.merging.engine import Engine
from evohydra.recipe import Merge, Node
from evohydra.scoring.benchmarks import (
    Answered,
    Asking,
    Audited,
    Benchmark,
    BenchmarkError,
    CommonAnswer,
    Divisible,
    Split,
    TellsAnswers,
)
from evohydra.scoring.benchmarks.likelihood import Likelihood, Verifiable, likelihoods_of, of_verified
from evohydra.scoring.benchmarks.room import out_of_memory
from evohydra.scoring.benchmarks.sampling import own_randomness
from evohydra.scoring.forward import clock_of, watch_of
from evohydra.scoring.job import DeviceError, Evaluation, Examples, Job, MachineError, Written, broken_by, checked
from evohydra.scoring.measures import FROM_BASE, Measures, is_measure

logger = logging.getLogger(__name__)
# What torch says where the machine fails and not the model; it has types of its own only for some of these.
DEVICE = (
    "CUDA error",
    "CUDA driver error",
    "device-side assert",
    "cuDNN error",
    "CUBLAS_STATUS",
    "CUSOLVER_STATUS",
    "CUSPARSE_STATUS",
    "CUFFT_",
    "cuFFT error",
    "NCCL",
    "HIP error",
)


Measured = functools.partial[NDArray[np.float64]]  # one measure, called as a benchmark is


class Worker:
    """One live model, which becomes the model of each recipe in turn, and the benchmarks that ask it.

    `reference` is what people see first, where a benchmark asks them to compare. `guarding` are benchmarks that only
    limits are set on. `sources` and `family` are for what is
    written with the model.
    """

    def __init__(
        self,
        engine: Engine,
        live: LiveModel,
        benchmarks: Mapping[str, Benchmark],
        sources: OpenSources,
        family: Family,
        reference: Node | None = None,
        guarding: Mapping[str, Benchmark] | None = None,
    ) -> None:
        self.engine, self.live, self.benchmarks = engine, live, benchmarks
        self.sources, self.family = sources, family
        self._asking = {name: each for name, each in benchmarks.items() if isinstance(each, Asking) and each.asks}
        self._likelihoods = likelihoods_of(benchmarks)
        self._measures = Measures({**benchmarks, **(guarding or {})}, sources)
        self._reference: tuple[Node, ...] = (reference,) if reference else ()
        self._expected: tuple[Node, ...] = ()
        self._referred: set[Split] = set()  # splits on which people have a reference
        self._clock, self._watch = clock_of(live), watch_of(live)

    def expect(self, recipes: Sequence[Node]) -> None:
        """Tell which recipes will be evaluated next, in this order."""
        self.live.expect(recipes)
        self._expected = tuple(recipes)

    def evaluate(self, job: Job, *ahead: Job) -> Evaluation:
        """The scores of a job; of those in `ahead`, which come next, an engine may work on some at once.

        What a bad genome can cause (a merge that is not finite, a model that cannot answer, logits or scores that are
        not numbers) gives an evaluation with an error. Raises MachineError for what says nothing about the genome
        (memory that runs out, a lost device), BenchmarkError for a wrong configuration, SourceError for weights that
        were written to in the meantime, OSError for a full disk.
        """
        self._clock.begin()
        start = merged = time.perf_counter()
        scores: dict[str, list[float]] = {}
        positions: dict[str, list[int]] = {}
        common: dict[str, CommonAnswer | None] = {}
        ends: dict[str, list[int]] = {}
        error = None
        shown = job.examples is None or any(job.examples.get(name) for name in self._asking)
        if self._asking and shown and (self._expected or job.split not in self._referred):
            self._show(job.split, job.examples)
        try:
            self._become(job, ahead)
            merged = time.perf_counter()
            self._measures.begin()
            for name, benchmark in self._asked_by(job):
                chosen = None if job.examples is None else job.examples.get(name, ())
                if job.part is not None:
                    chosen = self._part(benchmark, job, chosen, positions.setdefault(name, []))
                if chosen is None or len(chosen):
                    self._watch.begin()
                    with own_randomness(name, job.split):
                        scores[name] = [float(score) for score in benchmark(self.live, job.split, chosen)]
                    self._watch.check()
                    common[name] = benchmark.common_answer() if isinstance(benchmark, TellsAnswers) else None
                    if isinstance(benchmark, Audited) and (counts := benchmark.ends())[0]:
                        ends[name] = list(counts)
        except BenchmarkError:
            raise
        except (ArithmeticError, ValueError, RuntimeError, MemoryError) as reason:
            if kind := _machines(reason):
                raise kind(f"{type(reason).__name__}: {reason}") from reason
            scores, common, ends, error = {}, {}, {}, f"{type(reason).__name__}: {reason}"
        self.sources.check_unchanged()
        end = time.perf_counter()
        seconds = {"merge": merged - start, "evaluate": end - merged, "forward": self._clock.seconds}
        evaluation = Evaluation(
            scores,
            {part: round(value, 4) for part, value in seconds.items()},
            error,
            self._clock.tokens,
            broken_by(common),
            positions=positions if job.part is not None else None,
            common=common if job.part is not None else None,
            ends=ends,
        )
        return checked(evaluation)

    def _become(self, job: Job, ahead: Sequence[Job]) -> None:
        """Make the live model that of a job. Which way it becomes it follows from the job alone.

        Genomes of the search may be run as adapters. All that is scored for validation and test is merged, as it is
        written; so are sources, and whatever is no sum of adapters. The distance from the base is one of weights.
        """
        live = self.live
        searched = job.split == "search" and FROM_BASE not in (job.examples or ())
        if searched and isinstance(live, RunsAdapters) and live.runs_adapters and self._is_sum(job.recipe):
            alike = (each.recipe for each in ahead if replace(each, recipe=job.recipe) == job)
            live.become_adapter(job.recipe, self.engine, tuple(filter(self._is_sum, alike)))
        else:
            live.become(job.recipe, self.engine)

    def _is_sum(self, recipe: Node) -> TypeGuard[Merge]:
        """Whether it is a sum of the base and adapters."""
        return bool(self.engine.adapters.checkpoints(recipe))

    def _asked_by(self, job: Job) -> list[tuple[str, Benchmark | Likelihood | Measured]]:
        """All benchmarks, and the log-likelihoods and measures that the job names."""
        measured = [(name, functools.partial(self._measures, name)) for name in job.examples or () if is_measure(name)]
        named = [(name, self._likelihoods[name]) for name in job.examples or () if name in self._likelihoods]
        verified = [(name, of_verified(name, self.benchmarks, texts)) for name, texts in (job.verified or {}).items()]
        return [*self.benchmarks.items(), *named, *verified, *measured]

    def _part(
        self,
        benchmark: Benchmark | Likelihood | Measured,
        job: Job,
        examples: Sequence[int] | None,
        positions: list[int],
    ) -> Sequence[int]:
        """The examples of the part that the job is; `positions` are filled with where they are among all of the job."""
        assert job.part is not None
        index, count = job.part
        if examples is None:
            assert not isinstance(benchmark, functools.partial), "a measure of no examples"
            every: Sequence[int] = range(benchmark.size(job.split))
        else:
            every = examples
        if isinstance(benchmark, Divisible):
            positions += benchmark.part(self.live, job.split, examples, index, count)
        elif index == 0:
            positions += range(len(every))
        return [every[at] for at in positions]

    def written(self, recipe: Node, name: str, split: Split, examples: Sequence[int]) -> Written:
        """What the model of `recipe` writes to examples of a benchmark; raises as `evaluate` does."""
        asked = self.benchmarks[name]
        assert isinstance(asked, Verifiable)
        try:
            self.live.become(recipe, self.engine)
            self._watch.begin()
            with own_randomness(name, split):
                answers, scores = asked.written(self.live, split, examples)
            self._watch.check()
        except BenchmarkError:
            raise
        except (ArithmeticError, ValueError, RuntimeError, MemoryError) as reason:
            if kind := _machines(reason):
                raise kind(f"{type(reason).__name__}: {reason}") from reason
            return Written([], [], f"{type(reason).__name__}: {reason}")
        self.sources.check_unchanged()
        return Written(answers, scores)

    def recover(self) -> None:
        """Give back what memory can be given back, before a job is tried again in this process."""
        gc.collect()
        if torch.cuda.is_available():
            with suppress(RuntimeError):  # of a device that has failed
                torch.cuda.empty_cache()

    def become(self, recipe: Node) -> LiveModel:
        """The live model as that of `recipe`."""
        self.live.become(recipe, self.engine)
        return self.live

    def _show(self, split: Split, examples: Examples | None) -> None:
        """Let benchmarks that ask people see all recipes that are expected, so that the run stops once for them.

        Raises BenchmarkError while answers are missing. Recipes that cannot be shown are left to their evaluation.
        """
        for recipe in (*self._reference, *self._expected):
            try:
                self.live.become(recipe, self.engine)
                for name, benchmark in self._asking.items():
                    benchmark.show(self.live, split, None if examples is None else examples.get(name, ()))
            except BenchmarkError:
                raise
            except (ArithmeticError, ValueError, RuntimeError) as reason:
                logger.info("a recipe that cannot be shown to people: %s", reason)
        self._expected = ()
        self._referred.add(split)
        for benchmark in self._asking.values():
            benchmark.ask()


def _machines(reason: Exception) -> type[MachineError] | None:
    """Which failure of the machine this is; None where it is the model's."""
    text = str(reason)
    if isinstance(reason, EngineError):
        return DeviceError
    if out_of_memory(reason):
        return MachineError
    accelerator = getattr(torch, "AcceleratorError", None)  # of newer releases
    of_device = accelerator is not None and isinstance(reason, accelerator)
    return DeviceError if of_device or any(words in text for words in DEVICE) else None


def answers(worker: Worker, recipe: Node, benchmark: str, split: Split, examples: Sequence[int]) -> list[str]:
    """What the model of `recipe` answers, for a benchmark whose answers can be read."""
    asked = worker.benchmarks[benchmark]
    assert isinstance(asked, Answered)
    with own_randomness(benchmark, split):
        return asked.answers(worker.become(recipe), split, examples)


def written(worker: Worker, recipe: Node, benchmark: str, split: Split, examples: Sequence[int]) -> Written:
    """What the model of `recipe` writes to examples of a split, and what each answer scores."""
    return worker.written(recipe, benchmark, split, examples)


def probe(worker: Worker, recipe: Node) -> None:
    """Merge a little of each group of `recipe`; ValueError or MergeError where a method refuses it."""
    worker.engine.probe(recipe)
