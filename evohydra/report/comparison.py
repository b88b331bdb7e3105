"""One table for the runs of a sweep: python -m evohydra.report.comparison."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evohydra.files import Plain
from evohydra.report import make_console, say
from evohydra.report.cells import interval, mean, number
from evohydra.report.gathering import Job, apart, by_split, chosen_by_auto, gather, strategies

HEADS = ("strategy", "runs", "search", "validation", "test", "95 % interval", "test of each run", "genomes", "seconds")
NAME = 36  # characters of a strategy's name
EACH = 8  # runs whose scores are listed


def compare(directories: Iterable[Path], console: Console) -> int:
    """Print a row for each strategy of the runs at or below `directories`; returns how many runs there were.

    The best on validation comes first: test scores choose nothing, and are not sorted by. Runs that cannot be compared
    with each other stand in groups, and lines say why. Runs without a winner follow, each with its reason.
    """
    jobs = gather(directories)
    done = [job for job in jobs if job.summary is not None]
    table = Table(title="strategies, by their winners' mean score on validation", title_justify="left")
    for heading in HEADS:
        table.add_column(heading, justify="left" if heading in ("strategy", "test of each run") else "right")
    for row in sorted(_rows(done), key=lambda row: (row[0], -row[1])):
        table.add_row(*map(Text, row[2]))
    if done:
        console.print(table)
    for job in jobs:
        if job.summary is None:
            say(console, f"  {_without_winner(job)}", wrapped=True)
    from evohydra.report.sweeps import sweep_sentences  # takes seconds to import

    for sentence in (*apart(jobs), *chosen_by_auto(jobs), *sweep_sentences(jobs)):
        say(console, f"  {sentence}")
    return len(jobs)


def _rows(done: Sequence[Job]) -> Iterator[tuple[str, float, tuple[str, ...]]]:
    """Group, score to sort by (of validation, without one of the search), and cells of each strategy."""
    from evohydra.report.score_figures import finished, held_out, too_few  # takes seconds to import

    tested = {name: (score, each) for name, score, each in held_out(done)}
    few = dict(too_few(done))
    alone = scored[0] if len(scored := finished(done)) == 1 else None
    for strategy, members in strategies(done).items():
        score, each = tested.get("winner" if alone in members else strategy, ({"score": None}, []))
        means = {split: mean(by_split(job)[split] for job in members) for split in ("search", "validation")}
        summaries = [job.summary for job in members if job.summary]
        best = next((value for value in (means["validation"], means["search"]) if value is not None), 0.0)
        yield (
            members[0].group,
            best,
            (
                _name(strategy, members),
                str(len(members)),
                *map(number, means.values()),
                number(score["score"]),
                "too few runs" if strategy in few and each else interval(score),
                ", ".join(map(number, each[:EACH])) + (", ..." if len(each) > EACH else ""),
                _range([summary["evaluations"] for summary in summaries]),
                f"{sum(_seconds(summary) for summary in summaries) / len(summaries):.0f}",
            ),
        )


def _name(strategy: str, members: Sequence[Job]) -> str:
    if strategy:
        return strategy if len(strategy) <= NAME else f"{strategy[:NAME]}..."
    return members[0].name if len(members) == 1 else "all runs"


def _without_winner(job: Job) -> str:
    given = f" ({' '.join(job.overrides)})" if job.overrides else ""
    return f"run {job.name}{given}: {job.state}{f'; {job.failure}' if job.failure else ''}"


def _seconds(summary: Plain) -> float:
    return float(sum(summary["seconds"][part] for part in ("merge", "evaluate", "other")))


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def main() -> None:
    """The command: compare the runs in the directories that are given."""
    directories = [Path(argument) for argument in sys.argv[1:]]
    if not directories or any(not directory.is_dir() for directory in directories):
        sys.exit("usage: python -m evohydra.report.comparison OUTPUT_DIRECTORY [...]")
    if not compare(directories, make_console()):
        sys.exit("no runs found there")


if __name__ == "__main__":
    main()
