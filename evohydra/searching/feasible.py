"""Which genomes keep all limits, and what strategies are told of those that do not."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from evohydra.searching.ledger import Record

FLOOR = -1e9  # below which genomes are told that break a limit: no fitness is as low


def broken(record: Record) -> float:
    """By how much all limits together are broken; 0 where all are kept, or none is known."""
    return sum(max(0.0, -margin) for margin in record.limits.values())


def feasible_first(records: Sequence[Record]) -> list[Record]:
    """Records for strategies without a sense of limits, see `feasible`."""
    return list(map(feasible, records))


def feasible(record: Record) -> Record:
    """A record that breaks limits as one below all that keep them, by how much it does.

    Deb, An efficient constraint handling method for genetic algorithms, 2000: of two that keep all limits the better
    one is better, of two that do not the one that breaks them less.
    """
    if record.fitness is None or (amount := broken(record)) == 0:
        return record
    return replace(
        record,
        fitness=FLOOR - amount,
        objectives=dict.fromkeys(record.objectives, FLOOR - amount),
        error_bar=None,
    )


class FeasibleFirst(Sequence[Record]):
    """The same without a list of all: each record when it is asked for."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, at: int) -> Record: ...

    @overload
    def __getitem__(self, at: slice) -> list[Record]: ...

    def __getitem__(self, at: int | slice) -> Record | list[Record]:
        return feasible_first(self._records[at]) if isinstance(at, slice) else feasible(self._records[at])


def nearest(records: Sequence[Record], most: int) -> list[Record]:
    """The records that keep all limits in the search; where none does, the `most` recipes that break them least."""
    found = sorted(that_count(records), key=lambda record: (broken(record), record.index))
    if not found or broken(found[0]) == 0:
        return found
    different: dict[str, Record] = {}
    for record in found:
        different.setdefault(record.recipe, record)
    return list(different.values())[:most]


def that_count(records: Sequence[Record]) -> Iterator[Record]:
    """Those with a fitness that keep all limits in the search; all with a fitness where none does."""
    any_kept = any(map(_keeps, records))
    return (record for record in records if record.fitness is not None and (not any_kept or _keeps(record)))


def _keeps(record: Record) -> bool:
    return record.fitness is not None and broken(record) == 0


def margins(records: Sequence[Record], seen: Sequence[Record]) -> NDArray[np.float64]:
    """(genomes, limits): what has to be 0 or more; of genomes without numbers the smallest that was seen."""
    names = next((tuple(record.limits) for record in seen if record.limits), ())
    worst: dict[str, float] = {}
    if not all(record.limits for record in records):
        worst = {name: min(record.limits[name] for record in seen if record.limits) for name in names}
    return np.array(
        [[record.limits[name] if record.limits else worst[name] for name in names] for record in records],
        dtype=np.float64,
    )
