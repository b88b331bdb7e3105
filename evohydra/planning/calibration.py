"""A few merges and examples, measured here: how fast a run is, how much memory it takes, how far sources are apart."""

import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls

from evohydra.checks.libraries import versions
from evohydra.planning.cost import MEASURED, Rate, Speed
from evohydra.planning.power import Disagreement, disagreement
from evohydra.planning.work import Work
from evohydra.recipe import Node
from evohydra.run import Run
from evohydra.scoring.benchmarks.fingerprints import data_fingerprints
from evohydra.scoring.job import Job
from evohydra.scoring.measures import is_measure, measured_on
from evohydra.scoring.statistics import interval, paired_gain
from evohydra.scoring.worker import Worker
from evohydra.searching.optimizers import Optimizer, Points, StateIsData

LONG = 0.5  # seconds that a measured job should last, so that what it costs to begin one does not count
LEAST = 0.1  # of a job's time that it takes to ask a model, where a merge was slow by chance
MERGES = 3
REPORT = 1.15  # times the seconds of importing all libraries that the report takes: mostly matplotlib's
PASSES_OVER_WINNER = 3  # its bytes are written, read back and compared


@dataclass(frozen=True)
class Clock:
    """What measures: seconds of the processor, or on the wall."""

    now: Callable[[], float]

    def seconds(self, call: Callable[[], object]) -> float:
        """How long a call takes, kernels that it has started included."""
        began = self.now()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self.now() - began


def both() -> tuple[Clock, Clock]:
    """The processor's clock and the one on the wall."""
    return Clock(time.process_time), Clock(time.perf_counter)


@dataclass(frozen=True)
class Calibrated:
    """What was measured: seconds of the processor and on the wall, disagreement, bytes of memory.

    libraries: bytes of this process before it had a model.
    """

    processor: Speed
    wall: Speed
    apart: Disagreement
    memory: int
    libraries: int
    gpu_memory: int | None


@dataclass(frozen=True)
class Both:
    """The same number on both clocks."""

    processor: float
    wall: float

    def over(self, count: float) -> "Both":
        """Divided."""
        return Both(self.processor / count, self.wall / count)

    def plus(self, other: "Both", factor: float = 1.0) -> "Both":
        """The sum with so many times `other`."""
        return Both(self.processor + factor * other.processor, self.wall + factor * other.wall)


def calibrated(run: Run, make: Callable[[], Worker], work: Work, batch: int, began: Both, read: Both) -> Calibrated:
    """Measure a run with a worker of its own, which `make` makes; none of its files is touched.

    batch: prompts a forward pass. began: seconds of this process before its sources were read (libraries, most of
    all); read: of reading and assembling, which a run does too.
    """
    libraries = peak_memory()
    measured = _Measured(run, make(), batch)
    fixed = began.plus(read)
    if run.report:
        fixed = fixed.plus(began, REPORT)
    fixed = fixed.plus(_statistics(run)).plus(read, PASSES_OVER_WINNER / max(1, len(run.models.sources)))
    merge = measured.merge()
    rates = {name: measured.rate(name, _most(run, work, name)) for name in work.examples()}
    fixed = fixed.plus(measured.building)
    optimizer = _thinking(run, work)

    def speed(clock: str) -> Speed:
        return Speed(
            getattr(merge, clock),
            {
                name: Rate(getattr(start, clock), getattr(each, clock), prompts, tokens)
                for name, (start, each, prompts, tokens) in rates.items()
            },
            getattr(optimizer, clock),
            getattr(fixed, clock),
            MEASURED,
        )

    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return Calibrated(speed("processor"), speed("wall"), measured.apart(), peak_memory(), libraries, gpu)


def since(start: "Both | None" = None) -> Both:
    """Seconds of both clocks since `start`; without it since the process began."""
    if start is None:
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rsplit(")", 1)[1].split()[19])
        with open("/proc/uptime") as file:
            age = float(file.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
        return Both(time.process_time(), max(age, 0.0))
    now = since()
    return Both(now.processor - start.processor, now.wall - start.wall)


def peak_memory() -> int:
    """The most bytes that this process has held, mapped files that were read included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Measured:
    """Jobs of a worker, timed; the scores of sources are kept."""

    def __init__(self, run: Run, worker: Worker, batch: int) -> None:
        self._run, self._worker, self._batch = run, worker, batch
        self._models: dict[str, Node] = dict(run.models.sources)
        if run.models.uniform is not None:
            self._models["uniform"] = run.models.uniform
        self._scores: dict[str, dict[str, Sequence[float]]] = {}
        self.building = Both(0.0, 0.0)

    def merge(self) -> Both:
        """Of one random genome, after the tables about sources are made."""
        space = self._run.plan.space
        genomes = np.random.default_rng(0).random((MERGES + 1, len(space.names)))
        recipes = [space.decode(genome) for genome in genomes]
        self._worker.become(recipes[0])
        return self._timed(lambda: [self._worker.become(each) for each in recipes[1:]]).over(MERGES)

    def rate(self, name: str, most: int) -> tuple[Both, Both, int, float]:
        """Of one kind of score: of a batch, of an example, prompts a batch, tokens of an example.

        Jobs of the uniform merge are doubled until one is LONG, or has all examples. Then each source is asked as many,
        for answers of models differ in length.
        """
        uniform = list(self._models)[-1]
        count = min(2, most)
        first = self._scored(uniform, name, count)[0]
        taken = [(count, self._scored(uniform, name, count)[0])]
        self.building = self.building.plus(first).plus(taken[0][1], -1.0)
        while min(taken[-1][1].processor, taken[-1][1].wall) < LONG and count < most:
            count = min(2 * count, most)
            taken.append((count, self._scored(uniform, name, count)[0]))
        every = [self._scored(model, name, count) for model in self._models]
        taken += [(count, took) for took, _ in every]
        tokens = float(np.mean([found for _, found in every])) / max(count, 1)
        start, example = {}, {}
        for clock in ("processor", "wall"):
            start[clock], example[clock] = line([(n, getattr(took, clock)) for n, took in taken], self._batch)
        return Both(**start), Both(**example), self._batch, tokens

    def apart(self) -> Disagreement:
        """How much sources (and the uniform merge) disagree on what the metric has scored."""
        found, fewest = {}, []
        for name in self._run.benchmarks:
            scores = list(self._scores.get(name, {}).values())
            pairs = [(one, other) for at, one in enumerate(scores) for other in scores[at + 1 :]]
            if pairs:
                found[name] = disagreement(pairs)
                fewest.append(len(scores[0]))
        return Disagreement(found, min(fewest, default=0))

    def _scored(self, model: str, name: str, count: int) -> tuple[Both, float]:
        """A job of the first `count` search examples: seconds without the merge, and tokens."""
        recipe = self._models[model]
        self._worker.become(recipe)
        merging = self._timed(lambda: self._worker.become(recipe))
        found = []
        job = Job(recipe, "search", {name: range(count)})
        took = self._timed(lambda: found.append(self._worker.evaluate(job)))
        evaluation = found[0]
        if evaluation.error is not None:
            raise RuntimeError(f"calibrate=true: {model} could not be scored: {evaluation.error}")
        if name in self._run.benchmarks:
            self._scores.setdefault(name, {})[model] = evaluation.scores[name]
        asked = (max(getattr(took, c) - getattr(merging, c), LEAST * getattr(took, c)) for c in ("processor", "wall"))
        return Both(*asked), float(evaluation.tokens)

    @staticmethod
    def _timed(call: Callable[[], object]) -> Both:
        processor, wall = both()
        found: list[float] = []
        took = wall.seconds(lambda: found.append(processor.seconds(call)))
        return Both(found[0], took)


def line(taken: Sequence[tuple[int, float]], batch: int) -> tuple[float, float]:
    """Seconds of a batch and of an example, neither below 0, that jobs of (examples, seconds) have taken.

    Least squares of relative differences: short jobs tell what a batch costs, long ones what examples do.
    """
    seconds = np.array([max(took, 1e-6) for _, took in taken])
    rows = np.array([[max(1.0, count / batch), count] for count, _ in taken]) / seconds[:, None]
    (start, example), _ = nnls(rows, np.ones(len(taken)))
    return float(start), float(example)


def _most(run: Run, work: Work, name: str) -> int:
    """The examples of a job of the search at most: a genome's, or all search examples where they are scored so."""
    sizes: Mapping[str, int] = run.plan.sizes
    if name in sizes:
        return sizes[name]
    if run.guard is not None and is_measure(name):  # of limits: a benchmark or a text beside the fitness
        return min(run.guard.examples, run.guard.sizes["search"][measured_on(name)])
    stage = next(each for each in work.stages if name in each.examples)
    return max(1, round(stage.examples[name].high / max(stage.models, 1)))


def _statistics(run: Run) -> Both:
    """Intervals of all models on test, and the paired test, on made-up scores of as many examples."""
    generator = np.random.default_rng(0)
    scores = {name: generator.integers(0, 2, max(each.size("test"), 1)) for name, each in run.benchmarks.items()}
    other = {name: values[::-1] for name, values in scores.items()}

    def carried_out() -> None:
        paired_gain(scores, other)  # type: ignore[arg-type]
        for _ in run.models.all():
            interval(scores)  # type: ignore[arg-type]
        data_fingerprints(run.benchmarks)
        versions()

    return _Measured._timed(carried_out)


def _thinking(run: Run, work: Work) -> Both:
    """All asks and tells of the optimizer: measured after a third, two thirds and all genomes of a made-up search."""
    course, plan = work.course, run.plan
    generations, dimension = len(course.generations), len(plan.space.names)
    middle = np.random.default_rng(1).random(dimension)
    whole = Both(0.0, 0.0)
    parts = 3 if generations > 3 else 1
    for part in range(1, parts + 1):
        with closing(plan.optimizer(plan.starting_points())) as optimizer:
            told = _told(optimizer, course.genomes * part // parts, middle)
            whole = whole.plus(_Measured._timed(lambda: _one(optimizer, middle)), generations / parts)
            assert told >= 0
    return whole


def _told(optimizer: Optimizer, genomes: int, middle: Points) -> int:
    """Tell it so many made-up genomes, as its own generations where it learns from these alone."""
    if isinstance(optimizer, StateIsData):
        points = np.random.default_rng(2).random((genomes, len(middle)))
        optimizer.tell(points, _made_up(points, middle))
        return genomes
    done = 0
    while done < min(genomes, 3 * optimizer.population):
        done += _one(optimizer, middle)
    return done


def _one(optimizer: Optimizer, middle: Points) -> int:
    points = optimizer.ask()
    if len(points):
        optimizer.tell(points, _made_up(points, middle))
    return max(len(points), 1)


def _made_up(
    points: Points,
    middle: Points,
) -> Points:
    """A bowl, with waves in it: a smooth one would be learnt too fast."""
    away = points - middle
    found: Points = (-(away**2) + 0.05 * np.cos(12 * away)).sum(axis=1)
    return found
