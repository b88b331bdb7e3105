"""Disjoint splits of a task's examples."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from evohydra.checks import checked
from evohydra.files import Plain
from evohydra.scoring.benchmarks import BenchmarkError

SplitName = TypeVar("SplitName", bound=str)


@dataclass(frozen=True)
class Slice:
    """Part of a task's examples: from `start` up to `stop`, counted if they are integers, shares if they are floats.

    `task` may name another task than the benchmark's own, as when search and test use different data sets. `data_files`
    then gives that task's local files.
    """

    start: int | float = 0
    stop: int | float | None = None
    task: str | None = None
    data_files: str | Mapping[str, str] | None = None

    def indices(self, total: int, shuffle: int | None, limit: int | None) -> list[int]:
        """The chosen indices into `total` examples, in the order of the seed `shuffle` (None: as they come)."""
        order = np.arange(total) if shuffle is None else np.random.default_rng(shuffle).permutation(total)
        stop = total if self.stop is None else _position(self.stop, total)
        chosen = order[_position(self.start, total) : stop][:limit]
        return [int(index) for index in chosen]


def slice_of(key: str, fields: Plain) -> Slice:
    """The part that stands as `fields` under `key`; ValueError for fields that it has not, or of another type."""
    return checked(key, Slice, fields)


def _position(bound: int | float, total: int) -> int:
    if isinstance(bound, float):
        if not 0.0 <= bound <= 1.0:
            raise BenchmarkError(f"a share of the examples must lie in [0, 1], got {bound}")
        return round(bound * total)
    if not 0 <= bound <= total:
        raise BenchmarkError(f"a split reaches to example {bound}, but the task has {total}")
    return bound


def check_disjoint(name: str, prompts: Mapping[SplitName, Sequence[str]]) -> None:
    """BenchmarkError where a split is empty, or two splits share an example (its text, whatever its index)."""
    seen: dict[bytes, tuple[str, int]] = {}
    for split, texts in prompts.items():
        if not texts:
            raise BenchmarkError(f"benchmark {name!r}: the {split} split is empty")
        for index, text in enumerate(texts):
            key = hashlib.sha256(text.encode()).digest()
            other, other_index = seen.setdefault(key, (split, index))
            if other != split:
                raise BenchmarkError(
                    f"benchmark {name!r}: the splits overlap: example {index} of {split} is example {other_index} of "
                    f"{other}; change start and stop of benchmark.{name}.splits (or the data)"
                )
