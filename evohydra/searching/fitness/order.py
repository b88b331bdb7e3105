"""In which order the examples of a search split are used, and what they count."""

import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from evohydra.searching.objectives import Objective

logger = logging.getLogger(__name__)
Example = tuple[str, int]  # a benchmark, and a place in its search split


def shuffled(sizes: Mapping[str, int], seed: int, generation: int | None = None) -> list[Example]:
    """All examples in a random order, those of all benchmarks together; another one for each `generation`, if given.

    Every order is equally likely: any beginning is a simple random sample, in which each benchmark has its share on
    average.
    """
    examples = [(name, place) for name, size in sizes.items() for place in range(size)]
    generator = np.random.default_rng([seed] if generation is None else [seed, generation])
    return [examples[i] for i in generator.permutation(len(examples))]


def by_benchmark(examples: Iterable[Example]) -> dict[str, list[int]]:
    """The places of `examples` in each benchmark, in increasing order."""
    found: dict[str, list[int]] = {}
    for name, place in sorted(examples):
        found.setdefault(name, []).append(place)
    return found


def beginning(order: Sequence[Example], count: int) -> int:
    """How many examples of `order` make `count`, or more where it takes more until there is one of each benchmark."""
    names = {name for name, _ in order}
    return max(count, *(next(turn for turn, (name, _) in enumerate(order, 1) if name == each) for each in names))


def drawn(sizes: Mapping[str, int], count: int, seed: int, generation: int) -> dict[str, list[int]]:
    """`count` examples of each benchmark at random, by their places in its split; others in each generation."""
    generator = np.random.default_rng([seed, generation])
    return {
        name: sorted(map(int, generator.choice(size, min(count, size), replace=False))) for name, size in sizes.items()
    }


def interleaved(pools: Mapping[str, Sequence[int]]) -> list[Example]:
    """The examples of all pools, one of each benchmark in turn."""
    turns = range(max(map(len, pools.values()), default=0))
    return [(name, places[turn]) for turn in turns for name, places in pools.items() if turn < len(places)]


def weight_of(objective: Objective, sizes: Mapping[str, int]) -> dict[str, float]:
    """What the mean score on each benchmark counts in the fitness."""
    return {name: 1 / len(sizes) for name in sizes} if objective.weights is None else dict(objective.weights)


def say_where_fewer(sizes: Mapping[str, int], key: str, count: int) -> None:
    """Warn where the option `key` asks for more examples than there are; all are taken then."""
    for name, size in sizes.items():
        if count > size:
            logger.warning("fitness.%s=%d: %s has %d search examples; all are taken", key, count, name, size)


def check(good: bool, key: str, expected: str, got: object) -> None:
    """ValueError unless `good`: what was expected for the option `key`, and what came."""
    if not good:
        raise ValueError(f"fitness.{key}: expected {expected}, got {got!r}")
