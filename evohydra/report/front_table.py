"""The front of a search with several objectives as a table: its genomes, and which of them each rule would pick."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from evohydra.files import Plain

SHOWN = 20  # genomes on a screen
WINNER = "winner"


def front_rows(summary: Plain) -> tuple[str, Sequence[str], list[tuple[str, ...]]] | None:
    """On which split, the names of the columns, and a row for each genome; None where there is but one objective.

    Costs are positive, as people read them. The last column names the rules (`pick`) that prefer the genome, and the
    winner, which was chosen on validation.
    """
    split = next((split for split in ("search", "validation") if summary[split].get("front")), None)
    if split is None:
        return None
    front, picks = summary[split]["front"], summary[split].get("picks", {})
    names = [name for name in front[0] if name != "index"]
    rows = []
    for genome in front:
        told = [f"pick={rule}" for rule, index in picks.items() if index == genome["index"]]
        told += [WINNER] if genome["index"] == summary["search"]["index"] else []
        numbers = [f"{-genome[n] if n.startswith('-') else genome[n]:.4g}" for n in names]
        rows.append((str(genome["index"]), *numbers, ", ".join(told)))
    heads = [f"{n.removeprefix('-')} (less is better)" if n.startswith("-") else n for n in names]
    return split, ("genome", *heads, "picked by"), rows


def front_table(summary: Plain) -> Iterator[Table | str]:
    """The same for a screen, with a line below it; nothing where there is but one objective."""
    found = front_rows(summary)
    if found is None:
        return
    split, heads, rows = found
    title = Text(f"the front on the {split} split: no genome is better in all objectives")
    table = Table(title=title, title_justify="left")
    for number, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if number == len(heads) - 1 else "right")
    kept = _some(rows)
    for row in kept:
        table.add_row(*map(Text, row), style="bold" if WINNER in row[-1] else "")
    yield table
    more = f" {len(kept)} of {len(rows)} are shown; summary.json has all." if len(kept) < len(rows) else ""
    yield f"The winner was chosen on validation.{more}"


def _some(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """All rows, or of many those that something picks and others in even steps."""
    if len(rows) <= SHOWN:
        return rows
    step = (len(rows) - 1) / (SHOWN - 1)
    even = {round(number * step) for number in range(SHOWN)}
    return [row for at, row in enumerate(rows) if row[-1] or at in even]
