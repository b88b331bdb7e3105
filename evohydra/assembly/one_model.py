"""The scoring of one model: what takes libraries that are large."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evohydra.assembly.automatic import with_benchmark
from evohydra.assembly.parts import Parts, benchmarks_of, chosen_sources, found_sources, opened_parts, shapes_of
from evohydra.assembly.process import device_of, set_up_process, suit_threads
from evohydra.assembly.prompts import doubts_about_prompts
from evohydra.assembly.settings import Settings
from evohydra.assembly.sizes import fitted
from evohydra.assembly.workers import WorkerMaker
from evohydra.families import sources
from evohydra.files import Plain
from evohydra.scoring.benchmarks import Answered, Benchmark, BenchmarkError, Described, Split
from evohydra.scoring.benchmarks.fingerprints import data_fingerprints, titles
from evohydra.scoring.job import Evaluation, Job
from evohydra.scoring.worker import Worker, answers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """An example of a benchmark with what the model answered; None where the benchmark does not show it."""

    benchmark: str
    index: int
    question: str | None
    expected: str | None
    answer: str | None
    score: float


@dataclass(frozen=True)
class Found:
    """What became of a model: its name, scores or an error, answers where they were asked for.

    titles: what the scores are called. data: digests of the examples.
    """

    model: str
    evaluation: Evaluation
    answers: Sequence[Answer]
    titles: Sequence[str]
    data: Plain


def _parts(plain: Plain, given: Sequence[str]) -> tuple[Parts, str]:
    """What a worker is made of, and the name of the model."""
    plain, said = with_benchmark(plain, given)
    if said:
        logger.warning("%s", said)
    settings = Settings.parse(plain)
    set_up_process(settings.threads)
    device = device_of(settings.device)
    found = found_sources(settings)
    settings, fits, _ = fitted(settings, found)
    if fits:
        logger.warning("%s", fits)
    benchmarks = benchmarks_of(settings, found.family)
    if not benchmarks:
        raise BenchmarkError("no benchmark: choose one or more, for example benchmark=[mgsm_ja]")
    for doubt in doubts_about_prompts(chosen_sources(settings.model), found.directories, benchmarks):
        logger.warning("%s", doubt)
    parts = opened_parts(settings, found, sources.read_sources(found), benchmarks, device)
    suit_threads(settings.threads, shapes_of(parts))
    return parts, found.models[0].name


def scored(plain: Plain, given: Sequence[str], split: Split, *, with_answers: bool) -> Found:
    """The scores of the one model of a configuration on a split; `given` are the overrides that it was made with.

    Raises ValueError for settings that make no sense, BenchmarkError where the benchmark does not fit, SourceError for
    a model that cannot be read.
    """
    parts, name = _parts(plain, given)
    without = [name for name, each in parts.benchmarks.items() if not each.size(split)]
    if without:
        raise BenchmarkError(f"benchmark {without[0]!r} has no {split} split")
    worker = WorkerMaker(parts)()
    evaluation = worker.evaluate(Job(parts.sources.models[0], split))
    asked = with_answers and evaluation.error is None
    found = _answers(worker, parts.benchmarks, split, evaluation.scores) if asked else []
    return Found(name, evaluation, found, titles(parts.benchmarks), data_fingerprints(parts.benchmarks))


def _answers(
    worker: Worker, benchmarks: Mapping[str, Benchmark], split: Split, scores: Mapping[str, Sequence[float]]
) -> list[Answer]:
    """Every example that can be read, with the answer where the benchmark has one; answers are asked for again."""
    node = worker.sources.models[0]
    found = []
    for name, values in scores.items():
        benchmark, places = benchmarks[name], range(len(values))
        told = answers(worker, node, name, split, places) if isinstance(benchmark, Answered) else [None] * len(values)
        for place, answer, score in zip(places, told, values, strict=True):
            question, expected = benchmark.describe(split, place) if isinstance(benchmark, Described) else (None, None)
            found.append(Answer(name, place, question, expected, answer, score))
    return found
