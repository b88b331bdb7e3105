"""In which order the examples of a search split are used."""

from collections.abc import Iterable, Mapping

import numpy as np

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


def drawn(sizes: Mapping[str, int], count: int, seed: int, generation: int) -> dict[str, list[int]]:
    """`count` examples of each benchmark at random, by their places in its split; others in each generation."""
    generator = np.random.default_rng([seed, generation])
    return {
        name: sorted(map(int, generator.choice(size, min(count, size), replace=False))) for name, size in sizes.items()
    }
