"""`optimizer=bo` and others with 8 to 150 genes, on functions that cost no model.

    python -m tests.benchmarks.many_genes --functions rotated layers --genes 16 64 --optimizers cmaes bo --seeds 3

A genome's ability is 1.5 at a hidden optimum and falls with a quadratic form. An optimizer sees the mean log-likelihood
of 64 items of a two-parameter logistic model at that ability. Shown is the mean over seeds of the ability of the genome
that looked best, after each of some numbers of genomes, and the processor time of the search.
"""

import argparse
import time
from collections.abc import Callable

import hydra.utils
import numpy as np
from numpy.typing import NDArray

from evohydra.spaces.genes import Axis
from tests.contracts.discovery import composed

Values = NDArray[np.float64]
Ability = Callable[[Values], Values]
ITEMS, CLIP, BEST, STEEPNESS = 64, 5.0, 1.5, 26.0
BUDGETS = {8: (40, 80, 130), 16: (60, 130, 200), 32: (60, 130, 200), 64: (130, 200, 300), 150: (130, 200)}


def rotated(genes: int, generator: np.random.Generator) -> Ability:
    """A quadratic form along random directions, of which some matter ten times as much as others."""
    best = generator.uniform(0.2, 0.8, genes)
    turn = np.linalg.qr(generator.normal(size=(genes, genes)))[0]
    weights = np.geomspace(1, 10, genes)
    weights /= weights.sum()
    return lambda x: BEST - STEEPNESS * (weights * ((x - best) @ turn.T) ** 2).sum(axis=-1)


def separable(genes: int, generator: np.random.Generator) -> Ability:
    """Genes that matter unequally, a hundredfold; some of the best values lie at the end of the range."""
    best = generator.uniform(0.1, 1.1, genes).clip(0, 1)
    weights = generator.permutation(np.geomspace(1, 100, genes))
    weights /= weights.sum()
    return lambda x: BEST - STEEPNESS * (weights * (x - best) ** 2).sum(axis=-1)


def layers(genes: int, generator: np.random.Generator) -> Ability:
    """A weight for each of two sources and each layer: the best ones change slowly, and their sums matter most."""
    count = genes // 2
    walk = np.cumsum(generator.normal(size=(count, 2)), axis=0) / np.sqrt(count)
    best = np.clip(generator.uniform(0.3, 0.7, 2) + 0.35 * (walk - walk.mean(axis=0)), 0, 1)
    weights = generator.permutation(np.geomspace(1, 10, count))
    weights /= weights.sum()

    def ability(x: Values) -> Values:
        off = x.reshape(*x.shape[:-1], count, 2) - best
        each = (weights[:, None] * off**2).sum(axis=(-1, -2)) / 2
        sums = ((weights[:, None] * off).sum(axis=-2) ** 2).sum(axis=-1) / 2
        steps = (np.diff(off, axis=-2) ** 2).mean(axis=(-1, -2)) / 4
        found: Values = BEST - STEEPNESS * (0.5 * each + 0.5 * sums + 0.2 * steps)
        return found

    return ability


FUNCTIONS = {"rotated": rotated, "separable": separable, "layers": layers}


def searched(optimizer: str, function: str, genes: int, seed: int) -> tuple[list[float], float]:
    """The ability of the genome that looked best after each of the budgets, and the seconds of the search."""
    ability = FUNCTIONS[function](genes, np.random.default_rng([seed, genes, 5]))
    luck = np.random.default_rng([seed, 77])
    slopes, difficulties = luck.lognormal(0.3, 0.5, ITEMS), luck.normal(0, 2, ITEMS)
    start = np.vstack([np.tile([1.0, 0.0], genes // 2), np.tile([0.0, 1.0], genes // 2), np.full(genes, 0.5)])
    spec = composed(f"optimizer={optimizer}")["optimizer"]
    made = hydra.utils.instantiate(spec)(axes=(Axis(),) * genes, seed=seed, start=start)
    genomes, fitness, began = np.empty((0, genes)), np.empty(0), time.process_time()
    while len(fitness) < BUDGETS[genes][-1]:
        asked = made.ask()
        chances = slopes * (ability(asked)[:, None] - difficulties)
        seen = -np.logaddexp(0, -chances).clip(0, CLIP).mean(axis=1)
        made.tell(asked, seen)
        genomes, fitness = np.vstack([genomes, asked]), np.concatenate([fitness, seen])
    made.close()
    best = [genomes[fitness[:budget].argmax()] for budget in BUDGETS[genes]]
    return [float(ability(genome)) for genome in best], time.process_time() - began


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Optimizers with many genes.")
    parser.add_argument("--functions", nargs="+", choices=sorted(FUNCTIONS), default=list(FUNCTIONS))
    parser.add_argument("--genes", type=int, nargs="+", choices=sorted(BUDGETS), default=[8, 16, 32, 64])
    parser.add_argument("--optimizers", nargs="+", default=["cmaes", "bo"])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    print("| function | genes | genomes | optimizer | ability | seconds |\n|---|---|---|---|---|---|")
    for function in given.functions:
        for genes in given.genes:
            for optimizer in given.optimizers:
                found = [searched(optimizer, function, genes, seed) for seed in range(1, given.seeds + 1)]
                means = np.mean([each for each, _ in found], axis=0)
                seconds = np.mean([each for _, each in found])
                told = ", ".join(f"{mean:.2f}" for mean in means)
                print(
                    f"| {function} | {genes} | {', '.join(map(str, BUDGETS[genes]))} | {optimizer} | {told} "
                    f"| {seconds:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
