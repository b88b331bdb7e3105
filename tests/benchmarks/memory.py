"""How much memory the driver takes for each genome: the run's own search, workers that take no time.

    python -m tests.benchmarks.memory --genomes 10000 --genes 64
    python -m tests.benchmarks.memory --genomes 2000 --genes 4000
    python -m tests.benchmarks.memory --genomes 2000 --trace 15
    python -m tests.benchmarks.memory --genomes 10000 --ray
    python -m tests.benchmarks.memory --genomes 10000 --report

Scores come from a function (100 examples, right or wrong; with --continuous any number). With --ray two workers over a
local Ray give them. The table has the resident memory of this process after each tenth of the search, and at its end
the kB that a genome has added since the second tenth. --trace shows which lines of code hold what was added.
--report has another process write the report of the run, and says how much memory that took at most.
"""

import argparse
import functools
import gc
import hashlib
import importlib
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, cast

import hydra.utils
import numpy as np
from numpy.typing import NDArray

from evohydra.recipe import Checkpoint, Group, Merge, Node
from evohydra.scoring.executors import Executor
from evohydra.scoring.executors.local import Local
from evohydra.scoring.executors.ray_actors import RayActors
from evohydra.scoring.job import Evaluation
from evohydra.scoring.worker import Worker
from evohydra.searching.driver import search
from evohydra.searching.events import Events
from evohydra.searching.fitness.full import Full
from evohydra.searching.ledger import Ledger, Record
from evohydra.searching.rounds import Scoring
from evohydra.searching.scheduler import Scheduler
from evohydra.searching.scores import ScoreStore
from evohydra.searching.search_parts import SearchParts
from evohydra.searching.steady import search_steadily
from evohydra.searching.worker_times import WorkerTimes
from evohydra.spaces.genes import Axis
from tests.benchmarks.proc import status
from tests.contracts.discovery import composed
from tests.scripted import ScriptedWorker

EXAMPLES = 100
BLOCKS = 10
MODELS = (Checkpoint("one", "/models/one"), Checkpoint("two", "/models/two"))


REPORT = """
import resource, sys
from pathlib import Path
from evohydra.report.writing import write_report
write_report([Path(sys.argv[1])], Path(sys.argv[1]) / "page")
print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f} MB at most", flush=True)
"""


class Genes:
    """A linear merge of two models: two genes for each group."""

    def __init__(self, genes: int) -> None:
        self.names = tuple(f"group{at // 2}.weight.{MODELS[at % 2].name}" for at in range(genes))
        self.axes = (Axis(),) * genes

    def decode(self, x: NDArray[np.float64]) -> Node:
        groups = tuple(
            Group(f"group{at}", (f"model.layers.{at}.mlp.weight",), {"weight": (float(one), float(two))})
            for at, (one, two) in enumerate(x.reshape(-1, 2))
        )
        return Merge("linear", None, MODELS, groups)

    def values(self, x: NDArray[np.float64]) -> dict[str, float]:
        return dict(zip(self.names, map(float, x), strict=True))


def scored(continuous: bool, recipe: Node, *_: object) -> Evaluation:
    """Scores of a recipe on all examples, drawn from its content."""
    assert isinstance(recipe, Merge)
    content = repr([group.parameters["weight"] for group in recipe.groups])
    drawn = np.random.default_rng(int.from_bytes(hashlib.sha256(content.encode()).digest()[:8])).random(EXAMPLES)
    values = drawn if continuous else (drawn < 0.7).astype(np.float64)
    return Evaluation({"known": values.tolist()}, {"merge": 0.0, "evaluate": 0.0, "forward": 0.0})


class Idle(ScriptedWorker):
    """A worker that takes no time, and forgets what it is told to expect."""

    def expect(self, recipes: Sequence[Node]) -> None:
        """Nothing is kept."""


def made(continuous: bool) -> Worker:
    """A worker that takes no time."""
    return cast(Worker, Idle(functools.partial(scored, continuous)))


def megabytes() -> float:
    """The resident memory of this process that is its own."""
    gc.collect()
    return status("self")["RssAnon"] / 1e6


def carry_out(given: argparse.Namespace, observe: Callable[[Record], None]) -> None:
    """The search."""
    make = functools.partial(importlib.import_module("tests.benchmarks.memory").made, given.continuous)
    space = cast(Any, Genes(given.genes))
    spec = composed(f"optimizer={given.optimizer}")["optimizer"] | {"population": given.population}
    with tempfile.TemporaryDirectory() as root, ExitStack() as stack:
        executor: Executor = RayActors(make=make, workers=2, cpus_per_worker=1) if given.ray else Local(make=make)
        stack.enter_context(closing(executor))
        optimizer = stack.enter_context(closing(hydra.utils.instantiate(spec)(axes=space.axes, seed=1, start=None)))
        ledger = stack.enter_context(closing(Ledger(Path(root), {})))
        store = stack.enter_context(closing(ScoreStore(Path(root) / "scores.jsonl", {})))
        times = stack.enter_context(closing(WorkerTimes(Path(root) / "workers.jsonl")))
        sizes = {"known": EXAMPLES}
        scoring, fitness = Scoring(Scheduler(executor, store, times), sizes), Full(sizes=sizes, seed=1)
        parts = SearchParts(space, optimizer, fitness, scoring, ledger, given.genomes, (observe,))
        if given.steady:
            events = stack.enter_context(closing(Events(Path(root))))
            search_steadily(parts, events)
        else:
            search(parts)
        if given.report:
            report_of(Path(root))


def report_of(run: Path) -> None:
    """Say how much memory the report of a run takes at most, and that of a run without genomes, and how long."""
    empty = run / "empty"
    empty.mkdir()
    (empty / "run.json").write_text("{}")
    for name, directory in (("no genomes", empty), ("all genomes", run)):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", REPORT, str(directory)], check=True)
        print(f"the report of {name}: {time.monotonic() - began:.0f} s", flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="The driver's memory for each genome.")
    parser.add_argument("--genomes", type=int, default=10_000)
    parser.add_argument("--genes", type=int, default=64)
    parser.add_argument("--optimizer", default="de")
    parser.add_argument("--population", type=int, default=50)
    parser.add_argument("--continuous", action="store_true", help="scores that are any numbers")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--steady", action="store_true")
    parser.add_argument("--report", action="store_true", help="the memory of the report of the run, too")
    parser.add_argument("--trace", type=int, default=0, help="show so many lines of code that hold memory")
    given = parser.parse_args()
    block, told, taken = given.genomes // BLOCKS, [], []

    def observe(record: Record) -> None:
        if (record.index + 1) % block == 0:
            told.append(megabytes())
            print(f"{record.index + 1:7d} genomes {told[-1]:9.1f} MB", flush=True)
            if given.trace and (record.index + 1) in (block, BLOCKS * block):
                taken.append(tracemalloc.take_snapshot())

    if given.trace:
        tracemalloc.start()
    carry_out(given, observe)
    print(f"{1000 * (told[-1] - told[1]) / (given.genomes - 2 * block):.2f} kB a genome since the second tenth")
    for each in taken[1].compare_to(taken[0], "lineno")[: given.trace] if given.trace else ():
        print(each)


if __name__ == "__main__":
    main()
