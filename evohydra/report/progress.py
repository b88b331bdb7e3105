"""The live display of a search; plain lines where there is no terminal."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from evohydra.scoring.benchmarks.likelihood import measure_of
from evohydra.searching.feasible import broken
from evohydra.searching.ledger import Record
from evohydra.searching.scheduler import Scheduler
from evohydra.searching.worker_times import WorkerTimes

MOST = 16  # workers that have a line of their own on a terminal
SHORT = 70  # characters of a reason


@dataclass(frozen=True)
class Workers:
    """What is told of workers, from what schedules their jobs and what keeps their times."""

    scheduler: Scheduler
    times: WorkerTimes

    def shares(self) -> str:
        """How they spend their time: "2 workers: 3 % merging, 80 % scoring, 17 % waiting"."""
        found = self.times.shares()
        if found is None:
            return ""
        spent = f"{found.merging:.0%} merging, {found.scoring:.0%} scoring, {found.waiting:.0%} waiting"
        return f"{found.workers} worker{'s' if found.workers > 1 else ''}: {spent}".replace("%", " %")

    def lines(self) -> Iterator[str]:
        """What each of them is at, and of those that died the last reason."""
        at_work, deaths = dict(self.scheduler.at_work()), dict(self.times.deaths)
        for worker in sorted({*at_work, *deaths})[:MOST]:
            job, seconds = at_work.get(worker, ("waits", 0.0))
            died, reason = deaths.get(worker, (0, ""))
            ended = f"; died {died} time{'s' if died > 1 else ''}, the last: {reason[:SHORT]}" if died else ""
            yield f"worker {worker}: {job}{f', {seconds:.0f} s' if seconds >= 1 else ''}{ended}"


class _Bar(Progress):
    """A bar with lines about workers below it."""

    workers: Workers | None = None

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        if self.workers is not None:
            for line in filter(None, (self.workers.shares(), *self.workers.lines())):
                yield Text(line, style="dim", overflow="ellipsis", no_wrap=True)


class SearchProgress:
    """Shows generation, evaluations of the budget, best and mean fitness, evaluations a second and the time left.

    On a terminal a bar; elsewhere a line at the end of each generation (of an asynchronous search: when a genome of the
    next population is told). Used as a context manager, called with each
    record; the first `replayed` records come from the ledger and do not count for the speed.
    """

    def __init__(self, console: Console, budget: int, replayed: int, workers: Workers | None = None) -> None:
        self._console, self._budget, self._replayed = console, budget, replayed
        self._done, self._generation = 0, 0
        self._best: dict[str | None, float] = {}  # by what fitness is: None for scores of the metric
        self._current: dict[str | None, list[float]] = {}  # of this generation
        self._measure: str | None = None  # of the last genome that has a fitness
        self._started = time.perf_counter()
        self._workers = workers
        self._bar = _Bar(
            TextColumn("generation {task.fields[generation]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("best {task.fields[best]}  mean {task.fields[mean]}  {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar.workers = workers
        self._task = self._bar.add_task("", total=budget, generation=0, best="-", mean="-", rate="")

    def __enter__(self) -> "SearchProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._done:
            self._line()
        self._bar.stop()

    def __call__(self, record: Record) -> None:
        """One more genome."""
        if self._done and record.generation > self._generation:
            self._line()
            self._current = {}
        self._done, self._generation = self._done + 1, max(record.generation, self._generation)
        if record.fitness is not None:
            self._measure = measure_of(record.scores)
            if not broken(record):
                self._best[self._measure] = max(record.fitness, self._best.get(self._measure, record.fitness))
            self._current.setdefault(self._measure, []).append(record.fitness)
        best, mean = self._fitness()
        self._bar.update(
            self._task, completed=self._done, generation=self._generation, best=best, mean=mean, rate=self._rate()
        )

    def _fitness(self) -> tuple[str, str]:
        """Best so far of those that keep all limits, and the mean of the generation; a likelihood is called one.

        Likelihoods are not compared with scores of the metric: where there are both, the last genome's kind counts.
        """
        current, best = self._current.get(self._measure, []), "-"
        if self._measure in self._best:
            best = f"{f'{self._measure} ' if self._measure else ''}{self._best[self._measure]:.4f}"
        return best, f"{sum(current) / len(current):.4f}" if current else "-"

    def _speed(self) -> float:
        return max(0, self._done - self._replayed) / max(time.perf_counter() - self._started, 1e-9)

    def _rate(self) -> str:
        speed = self._speed()
        return f"{speed:.2f}/s ({3600 * speed:,.0f} genomes an hour)" if speed else "from the ledger"

    def _line(self) -> None:
        if self._console.is_terminal:
            return
        best, mean = self._fitness()
        left = self._budget - self._done
        remaining = f", about {left / self._speed():.0f} s left" if self._speed() else ""
        self._console.print(
            f"generation {self._generation:3d}: {self._done}/{self._budget} genomes, best {best}, mean {mean}, "
            f"{self._rate()}{remaining}",
            highlight=False,
        )
        if self._workers and (shares := self._workers.shares()):
            self._console.print(f"  {shares}", highlight=False)
