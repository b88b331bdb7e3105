"""What a run was scored on, for readers: titles, the number of examples in each split, and a digest of their words."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from evohydra.scoring.benchmarks import SPLITS, Benchmark, Described, FromHub


def data_fingerprints(benchmarks: Mapping[str, Benchmark]) -> dict[str, dict[str, dict[str, object]]]:
    """For each benchmark and split the number of examples and a SHA-256, None where examples cannot be described."""
    return {
        name: {
            split: {"examples": benchmark.size(split), "sha256": _digest(benchmark, split)}
            for split in SPLITS
            if benchmark.size(split)
        }
        for name, benchmark in benchmarks.items()
    }


def titles(benchmarks: Mapping[str, Benchmark]) -> list[str]:
    """What benchmarks are called above their scores: by name, and by their own title where they have one."""
    return [str(getattr(benchmark, "title", name)) for name, benchmark in benchmarks.items()]


def datasets(benchmarks: Mapping[str, Benchmark]) -> tuple[str, ...]:
    """The data sets of the hub that examples are from, as far as benchmarks say."""
    told = [name for each in benchmarks.values() if isinstance(each, FromHub) for name in each.datasets]
    return tuple(dict.fromkeys(told))


def _digest(benchmark: Benchmark, split: Any) -> str | None:
    if not isinstance(benchmark, Described):
        return None
    words = [benchmark.describe(split, index) for index in range(benchmark.size(split))]
    return hashlib.sha256(json.dumps(words, ensure_ascii=False).encode()).hexdigest()
