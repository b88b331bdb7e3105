"""One table for the runs of a sweep: printed at its end, and by python -m evohydra.report.comparison DIRECTORY..."""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from evohydra.report import make_console


class ComparisonTable(Callback):
    """Prints the table when a multirun has ended."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Compare the jobs of the sweep's directory."""
        compare([Path(config.hydra.sweep.dir)], make_console())


def compare(directories: Iterable[Path], console: Console) -> int:
    """Print a row for each run at or below `directories`, best winner first; returns how many there were."""
    runs = [run for directory in directories for run in _runs(directory)]
    overrides = _differing({run: _overrides(run) for run in runs})
    table = Table(title="runs, by the winner's score on the test split", title_justify="left")
    for heading in ("run", "overrides", "search", "validation", "test", "95 % interval", "gain", "genomes", "seconds"):
        table.add_column(heading, justify="left" if heading in ("run", "overrides") else "right")
    scored = [(run, json.loads((run / "summary.json").read_text())) for run in runs if (run / "summary.json").is_file()]
    for run, summary in sorted(scored, key=lambda item: -(item[1]["test"]["winner"]["score"] or 0.0)):
        winner, gain = summary["test"]["winner"], summary["gain"]
        table.add_row(
            str(run.name),
            overrides[run],
            _number(summary["search"]["winner"]["score"]),
            _number(summary["validation"]["winner"]["score"]),
            _number(winner["score"]),
            f"{_number(winner['low'])} to {_number(winner['high'])}",
            "-" if gain["difference"] is None else f"{gain['difference']:+.3f}",
            str(summary["evaluations"]),
            f"{sum(summary['seconds'][part] for part in ('merge', 'evaluate', 'other')):.0f}",
        )
    for run in runs:
        if not (run / "summary.json").is_file():
            table.add_row(str(run.name), overrides[run], "unfinished", "", "", "", "", "", "")
    console.print(table)
    return len(runs)


def _runs(directory: Path) -> list[Path]:
    if (directory / "run.json").is_file() or (directory / ".hydra").is_dir():
        return [directory]
    below = [path for path in directory.iterdir() if path.is_dir() and (path / ".hydra").is_dir()]
    return sorted(below, key=lambda path: (len(path.name), path.name))


def _overrides(run: Path) -> list[str]:
    file = run / ".hydra" / "overrides.yaml"
    return (yaml.safe_load(file.read_text()) or []) if file.is_file() else []


def _differing(overrides: Mapping[Path, list[str]]) -> dict[Path, str]:
    """What tells the runs apart."""
    common = set.intersection(*map(set, overrides.values())) if len(overrides) > 1 else set()
    return {
        run: " ".join(text for text in each if text not in common and not text.startswith("run="))
        for run, each in overrides.items()
    }


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
