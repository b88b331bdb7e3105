"""What Ray costs beside the evaluation: seconds to start, and for each job, with recipes of many genes.

    python -m tests.benchmarks.ray_overhead --genes 4000 --jobs 500 --workers 2

The workers do nothing, so that all there is to measure is what an executor does: processes beside Ray. A job's
seconds are those from the submission of a generation to its last answer, by the number of jobs.
"""

import argparse
import functools
import importlib
import time
from collections.abc import Callable
from contextlib import closing
from typing import cast

from evohydra.recipe import Checkpoint, Group, Merge
from evohydra.scoring.executors import Executor
from evohydra.scoring.executors.processes import Processes
from evohydra.scoring.executors.ray_actors import RayActors
from evohydra.scoring.job import Evaluation, Job
from evohydra.scoring.worker import Worker
from tests.scripted import ScriptedWorker

GENERATION = 50


def idle(*_: object) -> Evaluation:
    """An evaluation that takes no time."""
    return Evaluation({"task": [1.0] * 100}, {"merge": 0.0})


def made() -> Worker:
    """A worker that does nothing."""
    return cast(Worker, ScriptedWorker(idle))


def recipe(genes: int, number: int) -> Merge:
    """A merge of two models with so many genes, two for each group."""
    models = (Checkpoint("one", "/models/one"), Checkpoint("two", "/models/two"))
    groups = tuple(
        Group(f"group{i}", (f"model.layers.{i}.self_attn.q_proj.weight",), {"weight": (0.1 * number, 1.0 / (i + 1))})
        for i in range(genes // 2)
    )
    return Merge("linear", None, models, groups)


def timed(make: Callable[[], Executor], genes: int, jobs: int) -> tuple[float, float, float]:
    """Seconds to the first answer, for each job, and to end."""
    began, spent = time.perf_counter(), 0.0
    with closing(make()) as executor:
        executor.submit([Job(recipe(genes, 0), "search")])
        executor.completed()
        started = time.perf_counter()
        for at in range(0, jobs, GENERATION):
            work = [Job(recipe(genes, number), "search") for number in range(at, min(at + GENERATION, jobs))]
            handed = time.perf_counter()
            for _ in executor.submit(work):
                executor.completed()
            spent += time.perf_counter() - handed
        done = time.perf_counter()
    return started - began, spent / jobs, time.perf_counter() - done


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="What executors cost beside the evaluation.")
    parser.add_argument("--genes", type=int, default=4000)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    make = importlib.import_module("tests.benchmarks.ray_overhead").made  # what workers can import
    kinds: dict[str, Callable[[], Executor]] = {
        "processes": functools.partial(Processes, make=make, workers=given.workers, threads=1),
        "ray": functools.partial(RayActors, make=make, workers=given.workers, cpus_per_worker=1),
    }
    for name, executor in kinds.items():
        first, each, end = timed(executor, given.genes, given.jobs)
        print(f"{name}: first answer after {first:.1f} s, {1000 * each:.2f} ms a job, {end:.1f} s to end", flush=True)


if __name__ == "__main__":
    main()
