"""The command python -m evohydra.report: write the report of a run or sweep."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from evohydra.report.writing import write_report


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and do what it asks."""
    parser = argparse.ArgumentParser(prog="python -m evohydra.report", description=__doc__)
    parser.add_argument("directory", nargs="+", type=Path, help="of a run, or of a multirun")
    parser.add_argument("--to", type=Path, help="where to write (default: into the directory, if it is one)")
    given = parser.parse_args(arguments)
    missing = [str(directory) for directory in given.directory if not directory.is_dir()]
    if missing:
        parser.error(f"no such directory: {', '.join(missing)}")
    if given.to is None and len(given.directory) > 1:
        parser.error("several directories need --to DIRECTORY")
    try:
        written = write_report(given.directory, given.to or given.directory[0])
    except ValueError as error:
        sys.exit(f"evohydra: {error}")
    print(written["report"])


if __name__ == "__main__":
    main()
