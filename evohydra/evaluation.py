"""evohydra evaluate MODEL benchmark=NAME: the score of one model, with its interval; no search."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rich.text import Text

from evohydra.assembly.evaluation import Evaluated, evaluate
from evohydra.checks.terminal import harmless, log_to_terminal, quiet
from evohydra.files import write_json, write_whole
from evohydra.report import make_console, say


def table(found: Evaluated) -> Table:
    """The score on each benchmark, and their mean where there are several."""
    shown = Table(title=Text(f"{found.model}, {found.split} split: score and 95 % interval"), title_justify="left")
    for heading in ("benchmark", "score", "95 % interval", "examples"):
        shown.add_column(heading, justify="left" if heading == "benchmark" else "right")
    rows = list(zip(found.titles, found.benchmarks.values(), strict=True))
    for title, each in [*rows, *([("mean", found.overall)] if len(rows) > 1 else [])]:
        shown.add_row(Text(title), f"{each.score:.3f}", f"{each.low:.3f} to {each.high:.3f}", str(each.n))
    return shown


def to_json(found: Evaluated) -> dict[str, object]:
    """All but the answers, as JSON data."""
    plain = asdict(found)
    del plain["answers"]
    return {**plain, "score": found.score}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="evohydra evaluate", description=__doc__)
    parser.add_argument("model", help="a name of conf/model, a directory, a file, or OWNER/NAME on the hub")
    told = "benchmark=NAME, split=search|validation|test, device=..., adapter=..."
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help=told)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write scores, intervals and versions to FILE")
    parser.add_argument("--answers", type=Path, metavar="FILE", help="write every example with its answer to FILE")
    given = parser.parse_args(arguments)
    log_to_terminal()
    quiet()
    split = next((text.partition("=")[2] for text in reversed(given.options) if text.startswith("split=")), "test")
    overrides = [text for text in given.options if not text.startswith("split=")]
    try:
        for file in filter(None, (given.json, given.answers)):
            if not file.expanduser().absolute().parent.is_dir():
                raise ValueError(f"{file}: expected a file in a directory that exists")
        found = evaluate(given.model, overrides, split, with_answers=given.answers is not None)
        if given.json:
            write_json(given.json.expanduser(), to_json(found))
        if given.answers:
            lines = [json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in found.answers]
            write_whole(given.answers.expanduser(), "".join(lines).encode())
    except (ArithmeticError, ValueError, OSError, RuntimeError, MemoryError) as error:
        sys.exit(harmless(f"evaluate: {error}"))
    console = make_console()
    console.print(table(found))
    for file in filter(None, (given.json, given.answers)):
        say(console, f"  {file}")
