"""One table for the runs of a sweep: python -m evohydra.report.comparison."""

import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evohydra.report import make_console, say
from evohydra.report.gathering import Job, apart, by_split, chosen_by_auto, gather


def compare(directories: Iterable[Path], console: Console) -> int:
    """Print a row for each run at or below `directories`, best winner first; returns how many there were.

    Runs that cannot be compared with each other stand in groups, and lines say why.
    """
    jobs = gather(directories)
    table = Table(title="runs, by the winner's score on the test split", title_justify="left")
    for heading in ("run", "overrides", "search", "validation", "test", "95 % interval", "gain", "genomes", "seconds"):
        table.add_column(heading, justify="left" if heading in ("run", "overrides") else "right")
    scored = [(job, job.summary) for job in jobs if job.summary is not None]
    for job, summary in sorted(scored, key=lambda item: (item[0].group, -(item[1]["test"]["winner"]["score"] or 0.0))):
        winner, gain = summary["test"]["winner"], summary["gain"]
        table.add_row(
            _named(job),
            Text(" ".join(job.overrides)),
            _number(by_split(job)["search"]),
            _number(summary["validation"]["winner"]["score"]),
            _number(winner["score"]),
            f"{_number(winner['low'])} to {_number(winner['high'])}",
            "-" if gain["difference"] is None else f"{gain['difference']:+.3f}",
            str(summary["evaluations"]),
            f"{sum(summary['seconds'][part] for part in ('merge', 'evaluate', 'other')):.0f}",
        )
    for job in jobs:
        if job.summary is None:
            table.add_row(_named(job), Text(" ".join(job.overrides)), job.state, "", "", "", "", "", "")
    console.print(table)
    from evohydra.report.sweeps import sweep_sentences  # takes seconds to import

    for sentence in (*apart(jobs), *chosen_by_auto(jobs), *sweep_sentences(jobs)):
        say(console, f"  {sentence}")
    return len(jobs)


def _named(job: Job) -> Text:
    return Text(f"{job.name} ({job.group})" if job.group else job.name)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main() -> None:
    """The command: compare the runs in the directories that are given."""
    directories = [Path(argument) for argument in sys.argv[1:]]
    if not directories or any(not directory.is_dir() for directory in directories):
        sys.exit("usage: python -m evohydra.report.comparison OUTPUT_DIRECTORY [...]")
    if not compare(directories, make_console()):
        sys.exit("no runs found there")


if __name__ == "__main__":
    main()
