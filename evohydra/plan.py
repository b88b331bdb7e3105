"""What a run will cost and what it can show, before anything large is read: python -m evohydra.plan OVERRIDES."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evohydra.assembly import composition, starting
from evohydra.assembly.ahead import check_ahead
from evohydra.checks.terminal import harmless, log_to_terminal, quiet
from evohydra.files import write_json
from evohydra.planning.options import parsed
from evohydra.searching.secret_overrides import check_configuration, check_overrides

if TYPE_CHECKING:
    from evohydra.assembly.planner import Planned

FITS, LACKS, WRONG = 0, 1, 2  # exit statuses
HELP = """\
python -m evohydra.plan OVERRIDES   what `python -m evohydra OVERRIDES` will cost and can show
  calibrate=auto|true|false         measure a few merges and examples here (auto: where all sources are here, and small)
  gpu=NAME                          plan for this GPU instead of the device of this machine: h100, rtx4090, ...
  gpu_gb=N gpu_tflops=N gpu_bandwidth=N   its memory (GB), teraflops (dense, 16 bits) and GB a second
  workers=N                         plan for so many workers too
  memory_gb=N                       the CPU memory of the machine that is planned for
  json=FILE                         write the plan as JSON
Exit status: 0 it fits, 1 it does not (memory, disk), 2 the run would refuse it."""


def plan(overrides: Sequence[str]) -> "Planned":
    """The plan of the run with these overrides, of which some may be the plan's own; nothing is written.

    Of models on the hub no more than headers and small files is fetched. Raises what the run would raise before it
    scores anything.
    """
    options, given = parsed(overrides)
    check_overrides(given, os.environ)
    config = composition.composed([text for text in given if not text.startswith("hydra.run.dir=")])
    starting.check_run(config["run"])
    check_configuration(config, os.environ)
    check_ahead(config, given)
    from evohydra.assembly import planner  # takes seconds

    return planner.plan(config, given, options)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; it ends the process with one of the exit statuses."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(HELP)
        return
    quiet()  # before libraries are imported
    log_to_terminal()
    try:
        found = plan(given)
        if file := parsed(given)[0].json:
            write_json(Path(file), json.loads(json.dumps(found.document)))
    except (ValueError, OSError, ArithmeticError, RuntimeError, MemoryError) as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        told = str(error) if starting.is_a_sentence(error) else f"{type(error).__name__}: {error}"
        print(harmless(f"evohydra: {told}"), file=sys.stderr)
        sys.exit(WRONG)
    print(harmless(str(found)))
    sys.exit(FITS if found.fits else LACKS)


if __name__ == "__main__":
    main()
