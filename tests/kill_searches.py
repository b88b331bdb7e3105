"""Kill the search of each optimizer in each space again and again, and compare its ledger with that of one left alone.

    python -m tests.kill_searches DIRECTORY [SPACE ...]

Models and benchmark are left out, so that a search takes no time: fitness is a hash of the recipe and grows with the
generation. Each search is a process of its own, which kills itself (SIGKILL) in an evaluation, at a random genome after
those on file.
"""

import functools
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import hydra.utils
import numpy as np

from evohydra.recipe import Node, digest
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.job import Evaluation, Examples
from evohydra.searching.driver import search
from evohydra.searching.fitness.full import Full
from evohydra.searching.ledger import Ledger
from evohydra.searching.optimizers import Optimizer
from evohydra.searching.rounds import Scoring
from evohydra.searching.search_parts import SearchParts
from evohydra.spaces import Space
from evohydra.spaces.dataflow import DataFlowSpace
from evohydra.spaces.genes import Axis
from evohydra.spaces.hybrid import HybridSpace
from tests.commands import json_lines
from tests.contracts.discovery import BASELINES, names, settings_of
from tests.kill_repeatedly import lines
from tests.scripted import scheduling
from tests.test_dataflow_space import LAYOUT
from tests.test_parameter_space import DEPTH, MODELS, space

BUDGET, POPULATION, KILLS = 40, 8, 2
PATH = DataFlowSpace(models=MODELS, layers=(DEPTH, DEPTH), layout=LAYOUT, repeats=2)
SPACES: dict[str, Space] = {"parameter": space(), "dataflow": PATH, "hybrid": HybridSpace(space(), PATH)}


@functools.cache
def maker(optimizer: str) -> Callable[..., Optimizer]:
    """What makes it in generations of POPULATION; called before processes part, so that each need not import it."""
    settings = settings_of("optimizer", optimizer)
    if "population" in settings:
        settings = settings | {"population": POPULATION}
    make: Callable[..., Optimizer] = hydra.utils.instantiate(settings)
    make(axes=(Axis(), Axis()), seed=0, start=np.eye(2)).close()  # some import their package only now
    return make


class Hash:
    """Scores a recipe by its digest, and ends the process when it evaluates genome number `last`."""

    def __init__(self, ledger: Ledger, last: int) -> None:
        self._ledger, self._last = ledger, last

    def __call__(self, recipe: Node, split: Split, examples: Examples | None = None) -> Evaluation:
        done = len(self._ledger.records)
        if done == self._last:
            os.kill(os.getpid(), signal.SIGKILL)
        return Evaluation({"hash": [int(digest(recipe)[:8], 16) / 2**32 + done // POPULATION]})


def carry_out(directory: Path, optimizer: str, kind: str, last: int) -> None:
    """The search, killed when it evaluates its genome number `last`."""
    found = SPACES[kind]
    start = [found.encode(node) for node in found.known_merges().values()]

    with (
        closing(maker(optimizer)(axes=found.axes, seed=3, start=start)) as strategy,
        closing(Ledger(directory, {"optimizer": optimizer, "space": kind})) as ledger,
        scheduling(Hash(ledger, last), directory) as scheduler,
    ):
        sizes = {"hash": 1}
        fitness, scoring = Full(sizes=sizes, seed=3), Scoring(scheduler, sizes)
        search(SearchParts(found, strategy, fitness, scoring, ledger, BUDGET))


def in_a_process(directory: Path, optimizer: str, kind: str, last: int) -> int:
    """The same in a process of its own; the signal that ended it, 0 if none."""
    maker(optimizer)
    child = os.fork()
    if child == 0:
        try:
            carry_out(directory, optimizer, kind, last)
            os._exit(0)
        except BaseException:  # this copy of the process must not go on in `main`
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(f"the search by {optimizer} in the {kind} space failed")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def main() -> None:
    """The command, for all spaces unless some are named."""
    root, generator, spaces = Path(sys.argv[1]), random.Random(0), sys.argv[2:] or [*SPACES]
    for optimizer in names("optimizer"):
        for kind in spaces if optimizer != "grid" else ():  # which has too many genes to vary here
            alone, killed = root / "alone" / f"{optimizer}-{kind}", root / "killed" / f"{optimizer}-{kind}"
            assert in_a_process(alone, optimizer, kind, BUDGET) == 0
            genomes = json_lines(alone / "ledger.jsonl")
            assert len(genomes) == BUDGET or optimizer in BASELINES
            evaluated = [each["index"] for each in genomes if each["scored"]]  # the others are copies
            places = sorted(generator.sample(evaluated, min(KILLS, len(evaluated))))
            for place in places:
                assert in_a_process(killed, optimizer, kind, place) == signal.SIGKILL
                assert lines(killed / "ledger.jsonl") == place
            assert in_a_process(killed, optimizer, kind, BUDGET) == 0
            ledgers = [(each / "ledger.jsonl").read_bytes() for each in (alone, killed)]
            if ledgers[0] != ledgers[1]:
                sys.exit(f"{optimizer} in the {kind} space went on differently after kills at {places}")
            print(f"{optimizer} in the {kind} space: the same ledger after kills at {places}")


if __name__ == "__main__":
    main()
