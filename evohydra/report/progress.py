"""The live display of a search; plain lines where there is no terminal."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evohydra.scoring.benchmarks.likelihood import measure_of
from evohydra.search.ledger import Record


class SearchProgress:
    """Shows generation, evaluations of the budget, best and mean fitness, evaluations a second and the time left.

    On a terminal a bar; elsewhere a line at the end of each generation. Used as a context manager, called with each
    record; the first `replayed` records come from the ledger and do not count for the speed.
    """

    def __init__(self, console: Console, budget: int, replayed: int) -> None:
        self._console, self._budget, self._replayed = console, budget, replayed
        self._records: list[Record] = []
        self._started = time.perf_counter()
        self._bar = Progress(
            TextColumn("generation {task.fields[generation]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("best {task.fields[best]}  mean {task.fields[mean]}  {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=budget, generation=0, best="-", mean="-", rate="")

    def __enter__(self) -> "SearchProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._records:
            self._line(self._records)
        self._bar.stop()

    def __call__(self, record: Record) -> None:
        """One more genome."""
        if self._records and record.generation != self._records[-1].generation:
            self._line(self._records)
        self._records.append(record)
        best, mean = self._fitness()
        self._bar.update(
            self._task,
            completed=len(self._records),
            generation=record.generation,
            best=best,
            mean=mean,
            rate=self._rate(),
        )

    def _fitness(self) -> tuple[str, str]:
        """Best of all so far, and the mean of the current generation; a likelihood is called one.

        Likelihoods are not compared with scores of the metric: where there are both, the last genome's kind counts.
        """
        scored = [(r.fitness, measure_of(r.scores), r.generation) for r in self._records if r.fitness is not None]
        if not scored:
            return "-", "-"
        *_, (_, measure, _) = scored
        alike = [(fitness, generation) for fitness, kind, generation in scored if kind == measure]
        current = [fitness for fitness, generation in alike if generation == self._records[-1].generation]
        best = f"{f'{measure} ' if measure else ''}{max(fitness for fitness, _ in alike):.4f}"
        return best, f"{sum(current) / len(current):.4f}" if current else "-"

    def _speed(self) -> float:
        return max(0, len(self._records) - self._replayed) / max(time.perf_counter() - self._started, 1e-9)

    def _rate(self) -> str:
        return f"{self._speed():.2f}/s" if self._speed() else "from the ledger"

    def _line(self, records: list[Record]) -> None:
        if self._console.is_terminal:
            return
        best, mean = self._fitness()
        left = self._budget - len(records)
        remaining = f", about {left / self._speed():.0f} s left" if self._speed() else ""
        self._console.print(
            f"generation {records[-1].generation:3d}: {len(records)}/{self._budget} genomes, best {best}, "
            f"mean {mean}, {self._rate()}{remaining}",
            highlight=False,
        )
