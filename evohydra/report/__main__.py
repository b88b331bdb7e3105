"""The command python -m evohydra.report: write the report of a run or sweep, or its figures for a paper."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from evohydra.checks.terminal import harmless
from evohydra.report.style import LOOKS

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and do what it asks."""
    parser = argparse.ArgumentParser(prog="python -m evohydra.report", description=__doc__)
    parser.add_argument("directory", nargs="+", type=Path, help="of a run, or of a multirun")
    parser.add_argument("--sync", action="store_true", help="upload runs that W&B has logged offline, with wandb sync")
    parser.add_argument("--wandb", action="store_true", help="make a W&B report too, which compares the strategies")
    parser.add_argument("--to", type=Path, help="where to write (default: into the directory, if it is one)")
    parser.add_argument(
        "--figures", type=Path, metavar="DIR", help="write each figure into DIR as SVG, PDF and CSV, and no report"
    )
    parser.add_argument(
        "--style",
        choices=[*LOOKS],
        help="of --figures: screen (the report's), or paper: as wide as a column, in letters of 8 points, with dashes "
        "that tell lines apart in grey (default: screen)",
    )
    parser.add_argument("--serve", action="store_true", help="show it in the browser, and follow a search that runs")
    parser.add_argument("--port", type=int, default=0, help="of --serve (default: any that is free)")
    given = parser.parse_args(arguments)
    missing = [str(directory) for directory in given.directory if not directory.is_dir()]
    if missing:
        parser.error(f"no such directory: {', '.join(missing)}")
    if given.to is None and given.figures is None and len(given.directory) > 1:
        parser.error("several directories need --to DIRECTORY")
    target = given.to or given.directory[0]
    if not 0 <= given.port < 2**16:
        parser.error(f"--port: expected a whole number from 0 to 65535, got {given.port}")
    if given.style and not given.figures:
        parser.error("--style is that of --figures DIR")
    if given.figures and (given.serve or given.sync or given.wandb or given.to):
        parser.error("--figures DIR writes figures alone: give --serve, --sync, --wandb or --to in another command")
    if given.serve:
        from evohydra.report.serving import serve

        try:
            serve(given.directory, target, given.port)
        except OSError as error:
            sys.exit(harmless(f"evohydra: port {given.port}: {error.strerror or error}"))
        return
    from evohydra.report.writing import write_figures, write_report  # takes seconds

    try:
        if given.figures:
            written = write_figures(given.directory, given.figures, given.style or "screen")
            print("\n".join(map(str, written)) or "there is nothing to draw yet")
            return
        print(write_report(given.directory, target)["report"])
        if given.sync or given.wandb:
            from evohydra.report import sharing  # not for those who do without W&B
        if given.sync:
            sharing.sync(given.directory)
        if given.wandb:
            print(sharing.share(given.directory, target.resolve().name))
    except (ValueError, OSError) as error:
        sys.exit(harmless(f"evohydra: {error}"))
    except Exception as error:  # of files that were edited, or are of somebody else's run
        logger.debug("the report could not be made", exc_info=True)
        told = f"{type(error).__name__}: {error}"
        where = ", ".join(map(str, given.directory))
        sys.exit(
            harmless(f"evohydra: {where}: a file of the run holds something else than a run writes there ({told})")
        )


if __name__ == "__main__":
    main()
