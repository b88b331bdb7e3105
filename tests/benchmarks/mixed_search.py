"""Compare optimizers on a made-up data-flow problem: choices of slots, and scales that exist only where one is on.

    python -m tests.benchmarks.mixed_search --seeds 5 --budget 3000

A target path is hidden in the space: A's layers, some left out, some of B's put in, each with a scale of its own. A
path's value is its best alignment with the target: the hops that they share in order, a hop of the right scale
counting twice one of a wrong scale, less a little for each hop too many. The value of the target is 1. With --noise
the searched fitness is the share of so many problems solved, each with the value's chance; the value is what is shown.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import hydra.utils
import numpy as np

from evohydra.recipe import Checkpoint, Hop, LayerNames, Stack
from evohydra.spaces.dataflow import DataFlowSpace
from evohydra.spaces.scales import Matrix, Scales, Slot
from tests.contracts.discovery import composed, names

DEPTH, REPEATS = 8, 2
MODELS = (Checkpoint("a", "-"), Checkpoint("b", "-"))
LAYOUT = LayerNames("layers", "embeddings", "attention", "mlp")
KINDS: dict[str, Callable[..., Scales]] = {"slot": Slot, "matrix": Matrix}
WIDTH, TOO_MANY = 0.15, 0.01  # how near a scale must be; what a hop too many costs


def target(seed: int, found: DataFlowSpace) -> tuple[Hop, ...]:
    """A path of the space, to be found: some of A's and B's layers in slots at random, with scales at random."""
    generator = np.random.default_rng([seed, 77])
    x = generator.random(len(found.names))
    slots = DEPTH * 2 * REPEATS
    chances = np.where(np.arange(slots) < DEPTH, 0.7, 0.25)
    x[:slots] = np.where(generator.random(slots) < chances, 0.75, 0.25)
    return found.decode(x).hops


def value(path: Stack, wanted: tuple[Hop, ...]) -> float:
    """At most 1, that of the target."""
    best = np.zeros(len(wanted) + 1)
    for hop in path.hops:
        before = best.copy()
        for at, other in enumerate(wanted):
            if (hop.source, hop.layer) == (other.source, other.layer):
                gain = 0.5 + 0.5 * np.exp(-(((hop.scale - other.scale) / WIDTH) ** 2))
                best[at + 1] = max(best[at + 1], before[at] + gain)
            best[at + 1] = max(best[at + 1], best[at])
    return float(best[-1] / len(wanted) - TOO_MANY * max(0, len(path.hops) - len(wanted)))


def searched(optimizer: str, kind: str, seed: int, budget: int, population: int, noise: int) -> float:
    """The value of the path that is best by the fitness that the search saw."""
    found = DataFlowSpace(
        models=MODELS, layers=(DEPTH, DEPTH), layout=LAYOUT, repeats=REPEATS, scales=KINDS[kind], low=0.5, high=1.5
    )
    wanted = target(seed, found)
    settings: dict[str, Any] = composed(f"optimizer={optimizer}", f"optimizer.population={population}")["optimizer"]
    start = np.array([found.encode(node) for node in found.known_merges().values()])
    strategy = hydra.utils.instantiate(settings)(axes=found.axes, seed=seed, start=start)
    luck = np.random.default_rng([seed, 5])
    best, shown = -np.inf, 0.0
    try:
        for _ in range(budget // population):
            genomes = strategy.ask()
            values = np.array([value(found.decode(x), wanted) for x in genomes])
            fitness = luck.binomial(noise, values.clip(0, 1)) / noise if noise else values
            strategy.tell(genomes, fitness)
            top = int(fitness.argmax())
            if fitness[top] > best:
                best, shown = float(fitness[top]), float(values[top])
    finally:
        strategy.close()
    return shown


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Compare optimizers on a made-up data-flow problem.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=3000)
    parser.add_argument("--population", type=int, default=30)
    parser.add_argument("--noise", type=int, default=0, help="problems that fitness is estimated from; 0: none")
    parser.add_argument("--optimizers", nargs="*", default=names("optimizer"))
    given = parser.parse_args()
    print("| optimizer | scales | mean | deviation | each seed | seconds |\n|---|---|---|---|---|---|")
    for kind in KINDS:
        for optimizer in given.optimizers:
            began = time.perf_counter()
            found = [
                searched(optimizer, kind, seed, given.budget, given.population, given.noise)
                for seed in range(1, given.seeds + 1)
            ]
            spread = statistics.stdev(found) if len(found) > 1 else 0.0
            each = " ".join(f"{one:.3f}" for one in found)
            print(f"| {optimizer} | {kind} | {statistics.mean(found):.3f} | {spread:.3f} | {each} "
                  f"| {time.perf_counter() - began:.0f} |")  # fmt: skip
            sys.stdout.flush()


if __name__ == "__main__":
    main()
