"""The end of a sweep: its table and its report. Hydra loads this with every command, so it imports nothing heavy."""

import os
import sys
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from evohydra.searching.secret_overrides import check_swept

SWEEP = "multirun.yaml"  # in which Hydra keeps a sweep's configuration
_begun: list[tuple[Path, bool]] = []


class SweepReport(Callback):
    """Notes which sweep has begun; Hydra tells of the end only where no job has failed."""

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Keep the sweep's directory for `report_sweeps`, and whether to write a report.

        Ends the command where values that are swept are secrets: Hydra shows them and writes them to files.
        """
        try:
            check_swept(OmegaConf.to_container(config.hydra.sweeper, resolve=True), os.environ)
        except ValueError as error:
            sys.exit(f"evohydra: {error}")  # an exception would be a warning of Hydra's, which goes on
        _begun.append((Path(config.hydra.sweep.dir), bool(config.report)))


def report_sweeps() -> list[Path]:
    """Print the table and write the report of each sweep that began in this process, of whatever has ended.

    Returns the directories of sweeps of which no job has begun: there is Hydra's own file alone.
    """
    empty = [sweep for sweep, _ in _begun if sweep.is_dir() and [each.name for each in sweep.iterdir()] == [SWEEP]]
    _begun[:] = [(sweep, wanted) for sweep, wanted in _begun if sweep not in empty]
    if not _begun:
        return empty
    from evohydra.report import make_console, say
    from evohydra.report.comparison import compare
    from evohydra.report.gathering import runs_below
    from evohydra.report.writing import write_report

    console = make_console()
    while _begun:
        sweep, wanted = _begun.pop()
        if not sweep.is_dir() or not runs_below(sweep):
            continue
        compare([sweep], console)
        if wanted:
            say(console, f"  {write_report([sweep], sweep)['report']}: the report")
    return empty
