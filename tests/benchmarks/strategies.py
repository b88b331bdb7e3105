"""Compare all strategies on small functions whose optimum is known: how far from it is what a search finds best?

    python -m tests.benchmarks.strategies --seeds 5 --budget 1000

Functions of ten genes, 0 at their optimum, rotated and shifted anew for each seed: an ellipsoid whose axes
differ a hundredfold, Rastrigin's function, and a sphere that is seen through normal noise of deviation 0.1. What is
shown is the median over seeds of the noiseless value of the genome with the best fitness. Strategies for several
objectives search for the one.
"""

import argparse
from collections.abc import Callable

import hydra.utils
import numpy as np
from numpy.typing import NDArray

from evohydra.spaces.genes import Axis
from tests.contracts.discovery import SEARCHES, composed

GENES = 10
Values = NDArray[np.float64]


def ellipsoid(z: Values) -> Values:
    value: Values = (100 ** (np.arange(GENES) / (GENES - 1)) * z**2).sum(axis=1)
    return value


def rastrigin(z: Values) -> Values:
    z = 6 * z
    value: Values = (z**2 + 10 - 10 * np.cos(2 * np.pi * z)).sum(axis=1)
    return value


def sphere(z: Values) -> Values:
    value: Values = (z**2).sum(axis=1)
    return value


FUNCTIONS: dict[str, tuple[Callable[[Values], Values], float]] = {
    "rotated ellipsoid": (ellipsoid, 0.0), "rotated Rastrigin": (rastrigin, 0.0), "noisy sphere": (sphere, 0.1)
}  # fmt: skip


def found(optimizer: str, name: str, seed: int, budget: int) -> float:
    """The noiseless value of the genome that looked best in `budget` evaluations."""
    function, noise = FUNCTIONS[name]
    hidden = np.random.default_rng([seed, 7])
    rotation, _ = np.linalg.qr(hidden.normal(size=(GENES, GENES)))
    optimum, luck = hidden.uniform(0.25, 0.75, GENES), np.random.default_rng([seed, 8])
    strategy = hydra.utils.instantiate(composed(f"optimizer={optimizer}")["optimizer"])(
        axes=(Axis(),) * GENES, seed=seed, start=None
    )
    best, shown, left = np.inf, np.inf, budget
    try:
        while left > 0:
            genomes = strategy.ask()
            values = function((genomes - optimum) @ rotation)
            seen = values + noise * luck.normal(size=len(values))
            strategy.tell(genomes, -seen)
            top = int(seen[:left].argmin())
            if seen[top] < best:
                best, shown = float(seen[top]), float(values[top])
            left -= len(genomes)
    finally:
        strategy.close()
    return shown


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Compare strategies on small functions.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--optimizers", nargs="*", default=SEARCHES)
    given = parser.parse_args()
    print(f"| `optimizer=` | {' | '.join(FUNCTIONS)} |\n|{'---|' * (1 + len(FUNCTIONS))}")
    for optimizer in given.optimizers:
        medians = [
            float(np.median([found(optimizer, name, seed, given.budget) for seed in range(1, given.seeds + 1)]))
            for name in FUNCTIONS
        ]
        print(f"| `{optimizer}` | {' | '.join(f'{median:.2g}' for median in medians)} |", flush=True)


if __name__ == "__main__":
    main()
