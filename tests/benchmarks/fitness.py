"""Final held-out score against examples scored, for each kind of fitness: on known responses, and the embedded example.

    python -m tests.benchmarks.fitness synthetic RESULTS.jsonl [KIND...]
    python -m tests.benchmarks.fitness embedded RESULTS.jsonl [KIND...]
    python -m tests.benchmarks.fitness figure FIGURE.png RESULTS.jsonl...

The synthetic benchmark is a search over 64 genes without any model: a genome's ability falls with the square of its
distance to a hidden optimum, in directions of unequal weight. An example is solved if a number that is uniform in the
unit interval, over examples, is below the chance that a two-parameter logistic model gives. That number changes
smoothly with the genes, as answers do: genomes near each other fail on the same examples.
"""

import io
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray
from rich.console import Console
from scipy.special import expit, ndtr

from evohydra.recipe import Checkpoint, Node
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.job import Evaluation, Examples
from evohydra.searching.driver import choose, groups_of, search
from evohydra.searching.ledger import Ledger
from evohydra.searching.objectives import Objective
from evohydra.searching.rounds import Scoring
from evohydra.searching.search_parts import SearchParts
from evohydra.spaces.genes import Axis, Value
from tests.commands import built
from tests.contracts.discovery import composed
from tests.scripted import scheduling

# By label: overrides of the configuration, and by how much the usual number of genomes is multiplied.
KINDS: dict[str, tuple[tuple[str, ...], float]] = {
    "full": ((), 1),
    "full, a tenth of the genomes": ((), 0.1),
    "subset": (("fitness=subset",), 1),
    "racing": (("fitness=racing",), 1),
    "irt": (("fitness=irt",), 1),
    "irt, twice the genomes": (("fitness=irt",), 2),
}
OPTIMIZERS = ("cmaes", "de")
DIMENSION, BUDGET = 64, 1600
STIFFNESS = 2.0  # the larger, the less an example's luck changes with the genes
SIZES: dict[Split, int] = {"search": 500, "validation": 500, "test": 2000}


class Genes:
    """The unit cube; a recipe is a checkpoint whose path spells the genome."""

    names = tuple(f"gene{number}" for number in range(DIMENSION))
    axes = (Axis(),) * DIMENSION

    def decode(self, x: NDArray[np.float64]) -> Node:
        return Checkpoint("genome", np.asarray(x, dtype=np.float64).tobytes().hex())

    def values(self, x: NDArray[np.float64]) -> Mapping[str, Value]:
        return {}


class KnownResponses:
    """Responses of a two-parameter logistic model whose items and abilities are known."""

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng([seed, 64])
        self._best = generator.uniform(0.25, 0.75, DIMENSION)
        self._turn = np.linalg.qr(generator.normal(size=(DIMENSION, DIMENSION)))[0]
        self._weights = np.geomspace(1, 10, DIMENSION)
        self._weights /= self._weights.sum()
        self._items = {
            split: (
                generator.lognormal(0.3, 0.5, size),
                generator.normal(0.0, 2.0, size),
                generator.normal(size=(size, DIMENSION + 1)),
            )
            for split, size in SIZES.items()
        }
        self.scored = dict.fromkeys(SIZES, 0)

    def ability(self, genome: NDArray[np.float64]) -> float:
        """1.5 at the optimum, some -1.5 at random genomes."""
        return float(1.5 - 26.0 * (self._weights * (self._turn @ (genome - self._best)) ** 2).sum())

    def __call__(self, recipe: Node, split: Split, examples: Examples | None = None) -> Evaluation:
        assert isinstance(recipe, Checkpoint)
        genome = np.frombuffer(bytes.fromhex(recipe.path))
        slopes, difficulties, directions = self._items[split]
        where = np.append(genome - 0.5, STIFFNESS)
        luck = ndtr(directions @ (where / np.linalg.norm(where)))  # (examples,), uniform
        solved = (luck < expit(slopes * (self.ability(genome) - difficulties))).astype(float)
        chosen = solved if examples is None else solved[list(examples["known"])]
        self.scored[split] += len(chosen)
        return Evaluation({"known": chosen.tolist()}, {"merge": 0.0, "evaluate": 0.0, "forward": 0.0})


def synthetic(kind: str, optimizer: str, seed: int) -> dict[str, Any]:
    """One search on known responses."""
    plain = composed(f"optimizer={optimizer}", *KINDS[kind][0])
    sizes = {"known": SIZES["search"]}
    space, known = Genes(), KnownResponses(seed)
    generator = np.random.default_rng([seed, 2])
    sources = (
        [known(space.decode(x), "search").scores for x in generator.random((2, DIMENSION))]
        if kind.startswith("irt")
        else []
    )
    fitness = hydra.utils.instantiate(plain["fitness"])(sizes=sizes, seed=seed)
    strategy = hydra.utils.instantiate(plain["optimizer"])(axes=space.axes, seed=seed, start=None)
    with (
        tempfile.TemporaryDirectory() as directory,
        closing(strategy),
        closing(Ledger(Path(directory), {})) as ledger,
        scheduling(known, Path(directory)) as scheduler,
    ):
        scoring = Scoring(scheduler, sizes, sources=lambda: sources)
        budget = round(KINDS[kind][1] * BUDGET)
        search(SearchParts(space, strategy, fitness, scoring, ledger, budget))  # type: ignore[arg-type]
        each = not fitness.comparable
        best = choose(space, ledger, scheduler, 1 if each else 5, Objective(), group=groups_of(fitness))[0]  # type: ignore[arg-type]
        examples = sum(record.scored for record in ledger.records) + 2 * SIZES["search"] * bool(sources)
        genome = np.array(best.record.genome)
    test = known(best.recipe, "test").scores["known"]
    return {
        "test": float(np.mean(test)), "n": len(test), "examples": examples, "validation": known.scored["validation"],
        "ability": known.ability(genome),
    }  # fmt: skip


def embedded(kind: str, optimizer: str, seed: int) -> dict[str, Any]:
    """One run of the embedded example."""
    top = ("top=1",) if kind == "subset" else ()
    arguments = [
        f"optimizer={optimizer}",
        f"seed={seed}",
        *KINDS[kind][0],
        *top,
        "tracker=none",
        "baselines=null",
        "threads=1",
    ]
    with tempfile.TemporaryDirectory() as directory:
        summary = built(arguments, Path(directory) / "run")(Console(file=io.StringIO()))
    winner = summary["test"]["winner"]
    return {
        "test": winner["score"], "n": winner["n"], "examples": summary["examples_scored"],
        "validation": 200 * len(summary["validation"]["candidates"]), "seconds": summary["seconds"],
    }  # fmt: skip


def measure(what: str, file: Path, seeds: Sequence[int], kinds: Sequence[str]) -> None:
    """Each of these kinds with every optimizer and seed, a line for each; what is in the file is not done again."""
    carry_out = {"synthetic": synthetic, "embedded": embedded}[what]
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for seed in seeds:
        for optimizer in OPTIMIZERS:
            for kind in kinds:
                key = {"on": what, "kind": kind, "optimizer": optimizer, "seed": seed}
                if any(key.items() <= line.items() for line in done):
                    continue
                began = time.process_time()
                line = key | carry_out(kind, optimizer, seed) | {"cpu": round(time.process_time() - began, 1)}
                with file.open("a") as lines:
                    lines.write(json.dumps(line) + "\n")
                print(line, flush=True)


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Mean and range over seeds of the final score, and the examples that it took, as markdown."""
    rows = ["| on | optimizer | fitness | seeds | test score | of full | examples scored | fewer |",
            "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["on"], line["optimizer"], line["kind"]), []).append(line)
    for (on, optimizer, kind), group in sorted(
        groups.items(), key=lambda item: (item[0][:2], list(KINDS).index(item[0][2]))
    ):
        full = {line["seed"]: line for line in groups.get((on, optimizer, "full"), [])}
        paired = [(line, full[line["seed"]]) for line in group if line["seed"] in full]
        scores, spent = [line["test"] for line in group], float(np.mean([line["examples"] for line in group]))
        gap = f"{np.mean([one['test'] - other['test'] for one, other in paired]):+.3f}" if paired else ""
        fewer = f"{np.mean([other['examples'] for _, other in paired]) / spent:.1f}" if paired else ""
        rows.append(
            f"| {on} | {optimizer} | {kind} | {len(group)} | {np.mean(scores):.3f} ({min(scores):.3f} to "
            f"{max(scores):.3f}) | {gap} | {spent:.0f} | {fewer} |"
        )
    return "\n".join(rows)


def figure(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Final score against examples scored: a point for each run, a mark for each mean."""
    panels = sorted({(line["on"], line["optimizer"]) for line in lines}, reverse=True)
    drawn = Figure(figsize=(4.6 * len(panels), 4.2), layout="constrained")
    for number, panel in enumerate(panels, 1):
        axes = drawn.add_subplot(1, len(panels), number, sharey=drawn.axes[0] if number > 1 else None)
        for at, kind in enumerate(KINDS):
            here = [line for line in lines if (line["on"], line["optimizer"]) == panel and line["kind"] == kind]
            if here:
                examples, scores = ([line[key] for line in here] for key in ("examples", "test"))
                axes.scatter(examples, scores, s=14, color=f"C{at}", alpha=0.5)
                axes.scatter(np.mean(examples), np.mean(scores), s=90, color=f"C{at}", marker="osD^vP"[at], label=kind)
        axes.set(title=", ".join(panel), xlabel="search examples scored", ylabel="winner's score on test", xscale="log")
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        if number == 1:
            axes.legend(fontsize="small")
    drawn.savefig(path, dpi=110)


def main() -> None:
    """The command."""
    what, target, *rest = sys.argv[1:]
    if what == "figure":
        lines = [json.loads(line) for file in rest for line in Path(file).read_text().splitlines()]
        figure(lines, Path(target))
        print(table(lines))
        return
    measure(what, Path(target), range(1, 6), rest or list(KINDS))


if __name__ == "__main__":
    main()
