"""How busy workers are, and what is found, with search=generations and search=steady: on a simulated clock.

    python -m tests.benchmarks.steady RESULTS.jsonl [--optimizers cmaes de bo] [--workers 8 64 512] [--seeds 3]
    python -m tests.benchmarks.steady RESULTS.jsonl --table

The searches are the run's own (driver, scheduler, files); only the workers are simulated. A genome's score is that of
the synthetic benchmark of `tests.benchmarks.fitness` (64 genes; 100 of its search examples). How long a genome takes is
drawn from a log-normal distribution with the median of a minute. Its sigma is 0.36, which is what the seconds in
scores.jsonl of the embedded example have (24 genomes, two processes), and 0.8, for searches in which some models write
to the end of what they may. No worker sleeps: the clock goes on to the next one that is done. The processor time
that optimizer and files take passes on the same clock.

A population is as large as the number of workers, 16 at least; of `bo` that is the batch. What is found is told as the
ability of the best genome so far: 1.5 is the optimum, and random genomes have some -1.5.
"""

import argparse
import hashlib
import heapq
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, cast

import hydra.utils
import numpy as np

from evohydra.recipe import Checkpoint
from evohydra.scoring.executors import Executor
from evohydra.scoring.job import Evaluation, Job
from evohydra.searching.driver import search
from evohydra.searching.events import Events
from evohydra.searching.fitness.full import Full
from evohydra.searching.ledger import Ledger, Record
from evohydra.searching.rounds import Scoring
from evohydra.searching.scheduler import Scheduler
from evohydra.searching.scores import ScoreStore
from evohydra.searching.search_parts import SearchParts
from evohydra.searching.steady import search_steadily
from tests.benchmarks.fitness import Genes, KnownResponses
from tests.contracts.discovery import composed

SIGMAS = (0.36, 0.8)
MEDIAN = 60.0  # seconds of a genome
MERGING = 0.05  # of that, which each part of a genome takes again
SIZE = 100  # search examples, the first ones
BUDGETS = {"bo": {8: 160, 64: 320, 512: 1024}, "others": {8: 480, 64: 1280, 512: 2048}}


class Clock:
    """Workers whose time is simulated; `now` is the time. The processor time of the search itself passes, too."""

    def __init__(self, workers: int, known: KnownResponses, sigma: float, seed: int) -> None:
        self.workers, self.now = workers, 0.0
        self._jobs: list[tuple[float, float]] = []  # when each began, and how long it takes
        self._mark = time.process_time()
        self._known, self._sigma, self._seed = known, sigma, seed
        self._waiting: list[tuple[int, Job]] = []
        self._running: list[tuple[float, int, Job]] = []
        self._tickets = 0

    def submit(self, jobs: Sequence[Job]) -> list[int]:
        """Free workers begin at once."""
        self._pass()
        first = self._tickets
        self._tickets += len(jobs)
        self._waiting += enumerate(jobs, start=first)
        self._begin()
        return list(range(first, self._tickets))

    def _pass(self) -> None:
        """The search has done something meanwhile."""
        self._mark, before = time.process_time(), self._mark
        self.now += self._mark - before

    def _begin(self) -> None:
        while self._waiting and len(self._running) < self.workers:
            ticket, job = self._waiting.pop(0)
            seconds = self._seconds(job)
            self._jobs.append((self.now, seconds))
            heapq.heappush(self._running, (self.now + seconds, ticket, job))

    def _seconds(self, job: Job) -> float:
        assert isinstance(job.recipe, Checkpoint)
        digest = hashlib.sha256(f"{self._seed} {job.recipe.path}".encode()).digest()
        drawn = np.random.default_rng(int.from_bytes(digest[:8])).normal()
        whole = MEDIAN * float(np.exp(self._sigma * drawn))
        count = job.part[1] if job.part else 1
        return whole * (MERGING + (1 - MERGING) / count)

    def completed(self) -> tuple[int, Evaluation]:
        """The next job that is done."""
        self._pass()
        end, ticket, job = heapq.heappop(self._running)
        self.now = max(self.now, end)
        self._begin()
        index, count = job.part or (0, 1)
        places = list(range(SIZE))[index::count]
        scores = self._known(job.recipe, job.split, {"known": places}).scores
        seconds = {"merge": MEDIAN * MERGING, "evaluate": MEDIAN, "forward": MEDIAN}
        self._mark = time.process_time()  # what stands for the worker takes no time
        return ticket, Evaluation(scores, seconds, positions={"known": places})

    def busy(self, until: float) -> float:
        """The share of the workers' time up to then at which they were at work."""
        worked = sum(max(0.0, min(began + seconds, until) - began) for began, seconds in self._jobs)
        return worked / (self.workers * until)

    @property
    def last(self) -> float:
        """When the last job began: from then on some have nothing to do, however they are asked."""
        return max(began for began, _ in self._jobs)

    def ask(self, task: Any, *given: object) -> Any:
        """Nothing is asked."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is left to be ended."""


def carry_out(
    kind: str, optimizer: str, workers: int, sigma: float, seed: int, budget: int
) -> tuple[list[tuple[float, float]], dict[str, float]]:
    """For each genome when it was told and the ability of the best one so far; and figures of the search."""
    population = max(16, workers)
    space, known = Genes(), KnownResponses(seed)
    clock = Clock(workers, known, sigma, seed)
    spec = composed(f"optimizer={optimizer}")["optimizer"]
    spec = spec | (
        {"batch": population, "population": max(16, min(population, 64))}
        if optimizer == "bo"
        else {"population": population}
    )
    seen: list[tuple[float, float]] = []
    best = -np.inf

    def observe(record: Record) -> None:
        nonlocal best
        assert record.fitness is not None
        if record.fitness > best:
            best = record.fitness
            abilities.append(known.ability(np.array(record.genome)))
        seen.append((clock.now, abilities[-1]))

    abilities: list[float] = []
    began = time.process_time()
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as root, ExitStack() as stack:
        directory = Path(root)
        strategy = stack.enter_context(closing(hydra.utils.instantiate(spec)(axes=space.axes, seed=seed, start=None)))
        ledger = stack.enter_context(closing(Ledger(directory, {})))
        store = stack.enter_context(closing(ScoreStore(directory / "scores.jsonl", {})))
        sizes = {"known": SIZE}
        scoring = Scoring(Scheduler(cast(Executor, clock), store), sizes)
        fitness, found = Full(sizes=sizes, seed=seed), cast(Any, space)
        parts = SearchParts(found, strategy, fitness, scoring, ledger, budget, (observe,))
        if kind == "steady":
            events = stack.enter_context(closing(Events(directory)))
            search_steadily(parts, events)
        else:
            search(parts)
    return seen, {
        "busy": clock.busy(clock.last),
        "busy to the end": clock.busy(clock.now),
        "hours": clock.now / 3600,
        "driver": (time.process_time() - began) / budget,
    }


def pair(optimizer: str, workers: int, sigma: float, seed: int, budget: int) -> dict[str, Any]:
    """Both kinds of search: at equal numbers of genomes, and when generations have come to their end."""
    by_generation, figures = carry_out("generations", optimizer, workers, sigma, seed, budget)
    end = by_generation[-1][0]
    more = round(budget / figures["busy to the end"]) + workers  # as many as the same time has room for
    steady, theirs = carry_out("steady", optimizer, workers, sigma, seed, more)
    in_time = [ability for at, ability in steady if at <= end]
    return {
        "generations": {**figures, "ability": by_generation[-1][1]},
        "steady": {**theirs, "ability": steady[budget - 1][1], "hours": steady[budget - 1][0] / 3600},
        "in time": {"genomes": len(in_time), "ability": in_time[-1]},
    }


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Means over seeds, as markdown."""
    heads = (
        "optimizer",
        "workers",
        "sigma",
        "genomes",
        "seeds",
        "busy until the last genome begins: generations, steady",
        "busy to the end: generations, steady",
        "hours: generations, steady",
        "ability: generations, steady",
        "steady in the time of generations: genomes, ability",
        "driver, ms a genome",
    )
    rows = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    groups: dict[tuple[str, int, float, int], list[Mapping[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["optimizer"], line["workers"], line["sigma"], line["genomes"]), []).append(line)

    for (optimizer, workers, sigma, genomes), group in sorted(groups.items()):

        def mean(kind: str, name: str, group: Sequence[Mapping[str, Any]] = group) -> float:
            return float(np.mean([line[kind][name] for line in group]))

        rows.append(
            f"| `{optimizer}` | {workers} | {sigma} | {genomes} | {len(group)} | {mean('generations', 'busy'):.0%}, "
            f"{mean('steady', 'busy'):.1%} | {mean('generations', 'busy to the end'):.0%}, "
            f"{mean('steady', 'busy to the end'):.0%} | "
            f"{mean('generations', 'hours'):.1f}, {mean('steady', 'hours'):.1f} | "
            f"{mean('generations', 'ability'):.2f}, {mean('steady', 'ability'):.2f} | "
            f"{mean('in time', 'genomes'):.0f}, {mean('in time', 'ability'):.2f} | "
            f"{1000 * mean('steady', 'driver'):.0f} |"
        )
    return "\n".join(rows)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Generations beside steady, on a simulated clock.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--optimizers", nargs="*", default=["cmaes", "de", "bo"])
    parser.add_argument("--workers", nargs="*", type=int, default=[8, 64, 512])
    parser.add_argument("--sigmas", nargs="*", type=float, default=SIGMAS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--genomes", type=int, default=None, help="of each search, instead of what BUDGETS says")
    parser.add_argument("--table", action="store_true", help="only show what the file holds")
    given = parser.parse_args()
    done = [json.loads(line) for line in given.file.read_text().splitlines()] if given.file.is_file() else []
    for seed in () if given.table else range(1, given.seeds + 1):
        for optimizer in given.optimizers:
            for workers in given.workers:
                for sigma in given.sigmas:
                    genomes = given.genomes or BUDGETS["bo" if optimizer == "bo" else "others"][workers]
                    key = {"optimizer": optimizer, "workers": workers, "sigma": sigma, "seed": seed, "genomes": genomes}
                    if not any(key.items() <= line.items() for line in done):
                        done.append(key | pair(optimizer, workers, sigma, seed, genomes))
                        with given.file.open("a") as lines:
                            lines.write(json.dumps(done[-1]) + "\n")
                        print(done[-1], flush=True)
    print(table(done))


if __name__ == "__main__":
    main()
