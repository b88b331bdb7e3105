"""python -m evohydra.replay outputs/NAME: does what a run recorded lead to what it asked? Nothing is scored."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from evohydra.assembly.composition import composed_before, given_before
from evohydra.checks.terminal import harmless, log_to_terminal, quiet
from evohydra.report import make_console
from evohydra.searching.events import EVENTS
from evohydra.searching.identity import IDENTITY, SCORES
from evohydra.searching.replay import NotOnFileError, OnFile
from evohydra.searching.scheduler import Scheduler
from evohydra.searching.scores import ScoreStore, conditions

if TYPE_CHECKING:
    from evohydra.run import Run


def replayed(run: "Run", console: Console) -> int:
    """Ask, judge and tell again what is on file; the number of genomes.

    Raises LedgerError, with the line, for what does not follow from what is before it, and NotOnFileError where
    something would have to be scored.
    """
    plan = run.plan
    with ExitStack() as stack:
        start = plan.starting_points()
        optimizer = stack.enter_context(closing(plan.optimizer(start)))
        ledger = stack.enter_context(closing(run.ledger()))
        store = ScoreStore(run.directory / SCORES, conditions(run.identity), run.shared_scores)
        stack.enter_context(closing(store))
        executor = OnFile({})
        fitness, verified, _ = run.with_references(executor, ledger, console)
        scoring = run.scoring(Scheduler(executor, store), verified)
        plan.search(optimizer, fitness, scoring, ledger, (), start, recorded=True)
        return len(ledger.records)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m evohydra.replay",
        description="Does what a run recorded lead to the genomes that it asked for? Exit status 0: yes.",
    )
    parser.add_argument("run", type=Path, help="the directory of a run, as outputs/NAME")
    directory: Path = parser.parse_args(arguments).run.absolute()
    log_to_terminal()
    quiet()
    try:
        if not (directory / IDENTITY).is_file():
            raise ValueError(f"expected the directory of a run, got {directory}, which has no {IDENTITY}")
        plain, where = composed_before(directory)
        from evohydra.assembly.reading import AS_RECORDED
        from evohydra.assembly.runs import make_run  # takes seconds
        from evohydra.run import Run

        os.chdir(where)  # paths mean what they meant there
        place = {"name": directory.name, "group": None}
        made = make_run(plain, directory, place, given_before(directory), AS_RECORDED)
        if not isinstance(made, Run):
            raise ValueError(f"{directory} holds a run without a search")
        genomes = replayed(made, make_console())
    except (ArithmeticError, ValueError, OSError, RuntimeError, MemoryError, NotOnFileError) as error:
        sys.exit(harmless(f"replay: {error}"))
    logs = f"{EVENTS}, ledger.jsonl" if made.plan.steady else "ledger.jsonl"
    print(f"ok: {genomes} genomes of {directory.name} follow from the seed and from what is on file ({logs}, {SCORES})")


if __name__ == "__main__":
    main()
