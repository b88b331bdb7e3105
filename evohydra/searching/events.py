"""What the driver of an asynchronous search asked and was told, in order: events.jsonl of a run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from evohydra.searching.json_lines import JsonLines, LedgerError

EVENTS = "events.jsonl"


@dataclass(frozen=True)
class Asked:
    """The optimizer was asked for genome `number`, (dimension,)."""

    number: int
    genome: NDArray[np.float64]


@dataclass(frozen=True)
class Told:
    """The result of the genome that was asked as `number` was told: the next line of the ledger."""

    number: int


class Events:
    """The events of a run, a line each. Asks have the numbers 0, 1, 2 ...; results come in any order.

    Raises LedgerError where the lines are no history of a search.
    """

    def __init__(self, directory: Path) -> None:
        self._lines = JsonLines(directory / EVENTS, in_memory=False)
        try:
            self._check()
        except LedgerError:
            self.close()
            raise
        except (KeyError, TypeError, ValueError) as error:
            self.close()
            raise LedgerError(f"{self.path}: a line is damaged ({error!r})") from error

    @property
    def path(self) -> Path:
        """The file."""
        return self._lines.path

    @property
    def recorded(self) -> Iterator[Asked | Told]:
        """The events so far, read from the file one by one."""
        return map(_event, self._lines.entries)

    @property
    def told(self) -> int:
        """How many results were told."""
        return sum(isinstance(event, Told) for event in self.recorded)

    def _check(self) -> None:
        asked, told = 0, set[int]()
        for line, event in enumerate(self.recorded):
            if isinstance(event, Asked):
                if event.number != asked:
                    self.refuse(line, f"asks for genome {event.number}, where {asked} was expected")
                asked += 1
                continue
            if event.number >= asked or event.number in told:
                again = "again" if event.number in told else "before it was asked"
                self.refuse(line, f"tells the result of genome {event.number} {again}")
            told.add(event.number)

    def refuse(self, line: int, what: str) -> NoReturn:
        """LedgerError that names a line, counted from 0."""
        raise LedgerError(
            f"{self.path}: line {line + 1} {what}: it was changed after it was written, or another version of a "
            "library wrote it. Delete this line and all after it, and give the same command again: what was scored is "
            "in scores.jsonl, and the lines of ledger.jsonl are made again from it"
        )

    def add(self, event: Asked | Told) -> None:
        """Write the next event."""
        if isinstance(event, Asked):
            self._lines.append({"asked": event.number, "genome": [float(u) for u in event.genome]})
        else:
            self._lines.append({"told": event.number})

    def cut(self, count: int) -> None:
        """Keep the first `count` events."""
        self._lines.cut(count)

    def close(self) -> None:
        """Release the file to other processes."""
        self._lines.close()


def _event(entry: Mapping[str, object]) -> Asked | Told:
    if set(entry) == {"told"} and isinstance(entry["told"], int):
        return Told(entry["told"])
    if set(entry) == {"asked", "genome"} and isinstance(entry["asked"], int):
        genome = np.array(entry["genome"], dtype=np.float64)
        if genome.ndim == 1 and np.isfinite(genome).all():
            return Asked(entry["asked"], genome)
    raise ValueError(f"expected asked with a genome, or told, got {str(entry)[:60]}")
