"""Seconds: of an example, of a merge, and of a whole run on one worker or on several."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from evohydra.planning.devices import Device
from evohydra.planning.work import Stage, Work
from evohydra.searching.fitness.expected import NOTHING, Between

WITHIN = (0.5, 2.0)  # of an estimate from a device's figures
MEASURED = (0.75, 1.35)  # of one that was measured on a few examples
SOON = 1.1  # of an even share of the work: workers wait for each other at the end of a generation


@dataclass(frozen=True)
class Rate:
    """Seconds of one kind of score: of a batch of up to `batch` examples, and of each example, of so many `tokens`.

    per_job: of each model that is asked, besides.
    """

    per_batch: float
    per_example: float
    batch: int
    tokens: float = 0.0
    per_job: float = 0.0

    def seconds(self, examples: float, jobs: float) -> float:
        """Of so many examples in so many jobs of one model each."""
        if examples <= 0 or jobs <= 0:
            return 0.0
        batches = max(jobs, examples / self.batch) if examples >= jobs else examples
        return self.per_batch * batches + self.per_example * examples + self.per_job * jobs


@dataclass(frozen=True)
class Speed:
    """How fast a run is: a merge, examples by the name of their score, all of the optimizer's thoughts, and the rest.

    fixed: seconds of what does not depend on the search (libraries, sources, report). within: by which factors the
    truth may differ. unknown: names of scores of which nothing is known.
    """

    merge: float
    rates: Mapping[str, Rate]
    optimizer: float
    fixed: float
    within: tuple[float, float] = WITHIN
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """Seconds of a run: by stage, and in all."""

    workers: int
    stages: Mapping[str, Between]
    total: Between
    tokens: float = 0.0
    passes: float = 0.0
    unknown: tuple[str, ...] = field(default=())


def cost(work: Work, speed: Speed, workers: int = 1, at_once: int | None = None) -> Cost:
    """What a run costs with so many workers, of which the machine carries so many at once (None: all)."""
    together = workers if at_once is None else min(workers, at_once)
    stages = {stage.name: _shared(_serial(stage, speed), work, stage, together) for stage in work.stages}
    stages["optimizer"] = Between.known(speed.optimizer)
    stages["other"] = Between.known(speed.fixed)
    total = NOTHING
    for each in stages.values():
        total = total + each
    low, high = speed.within
    examples = work.examples()
    rates = {name: speed.rates[name] for name in examples if name in speed.rates}
    return Cost(
        workers,
        stages,
        Between(total.low * low, total.likely, total.high * high),
        sum(examples[name].likely * rate.tokens for name, rate in rates.items()),
        sum(max(examples[name].likely / rate.batch, 1) for name, rate in rates.items()),
        speed.unknown,
    )


def saved(work: Work, speed: Speed, batch: int) -> float:
    """The share of the scoring time that batches of so many examples would save; below 0 where they cost more."""
    larger = replace(speed, rates={name: replace(rate, batch=batch) for name, rate in speed.rates.items()})
    now, then = (
        sum(_serial(stage, replace(each, merge=0.0)).likely for stage in work.stages) for each in (speed, larger)
    )
    return 1 - then / now if now > 0 else 0.0


def _serial(stage: Stage, speed: Speed) -> Between:
    """Seconds of a stage on one worker."""

    def scored(which: str) -> float:
        return sum(
            rate.seconds(getattr(count, which), _jobs(stage, count, which))
            for name, count in stage.examples.items()
            if (rate := speed.rates.get(name))
        )

    merging = speed.merge * stage.models
    return Between(merging + scored("low"), merging + scored("likely"), merging + scored("high"))


def _jobs(stage: Stage, count: Between, which: str) -> float:
    """In how many jobs examples of one kind are scored: a checked generation is a part of all models."""
    most = max((each.likely for each in stage.examples.values()), default=0.0)
    examples: float = getattr(count, which)
    return min(stage.models, stage.models * examples / most) if most else 0.0


def _shared(serial: Between, work: Work, stage: Stage, workers: int) -> Between:
    """The same where workers share it: evenly at best, at worst each waits for whole genomes."""
    if workers == 1:
        return serial
    sizes = work.course.generations if stage.name == "search" else (max(1, round(stage.models)),)
    whole = sum(math.ceil(size / workers) for size in sizes) / sum(sizes)
    even = 1 / workers
    return Between(serial.low * even, serial.likely * min(whole, SOON * even), serial.high * whole)


@dataclass(frozen=True)
class Shape:
    """A language model as far as its speed goes.

    parameters: that each token goes through, without rows of embeddings. bytes: of the weights. cached: bytes of keys
    and values of a token. layers: that a prompt goes through.
    """

    parameters: float
    bytes: float
    cached: float
    layers: int


@dataclass(frozen=True)
class Asked:
    """How one example is asked, in tokens: `prompt`, `answer` (written, or given to be judged), `passes` of it.

    writes: whether the answer is generated, token by token, by so many `beams`. `longest` answers end a batch.
    """

    prompt: float
    answer: float
    longest: float
    passes: float = 1
    writes: bool = True
    beams: int = 1


def language_rate(shape: Shape, asked: Asked, device: Device, batch: int, job: float = math.inf) -> Rate:
    """How fast a language model answers, from the device's figures; `job` examples are asked of a model at once.

    Reading is bound by arithmetic, 2 operations for each parameter and token (Kaplan et al., arXiv 2001.08361, section
    2.1). Writing a token of each answer of a batch is bound by reading all weights and the keys and values, or by
    starting the layers' kernels.
    """
    flops, bandwidth = device.flops * device.compute, device.bandwidth * device.transfer
    starting = shape.layers * device.overhead
    read = asked.prompt + (0 if asked.writes else asked.answer)
    per_example = asked.passes * read * asked.beams * 2 * shape.parameters / flops
    per_batch = starting * asked.passes
    if asked.writes:
        rows = min(batch, job) * asked.beams
        cached = rows * (asked.prompt + asked.longest / 2) * shape.cached
        step = max((shape.bytes + cached) / bandwidth, 2 * shape.parameters * rows / flops, starting)
        per_batch += asked.longest * step
    return Rate(per_batch, per_example, batch, asked.passes * (asked.prompt + asked.answer))


def merge_seconds(bytes_of_model: float, sources: int, device: Device, kept: bool) -> float:
    """One pass over all sources and the result; sources that are not `kept` on the device come over PCIe."""
    transfer = device.bandwidth * device.transfer if kept or not device.gpu else 12e9
    return bytes_of_model * (sources + 2) / transfer
