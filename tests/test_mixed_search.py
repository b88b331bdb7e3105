"""The made-up data-flow problem of tests/benchmarks/mixed_search.py, and what it says about optimizers."""

import statistics
from dataclasses import replace

import numpy as np
import pytest

from evohydra.recipe import Hop
from evohydra.spaces.dataflow import DataFlowSpace
from evohydra.spaces.scales import Slot
from tests.benchmarks.mixed_search import DEPTH, LAYOUT, MODELS, REPEATS, TOO_MANY, searched, target, value


def test_the_target_is_worth_one_and_everything_else_less() -> None:
    found = DataFlowSpace(models=MODELS, layers=(DEPTH, DEPTH), layout=LAYOUT, repeats=REPEATS, scales=Slot)
    wanted = target(1, found)
    best = replace(found.alone(), hops=wanted)
    assert value(best, wanted) == pytest.approx(1)
    assert value(replace(best, hops=(*wanted, wanted[-1])), wanted) == pytest.approx(1 - TOO_MANY)
    assert value(replace(best, hops=wanted[:-2]), wanted) == pytest.approx(1 - 2 / len(wanted))
    wrong = (*wanted[:-1], Hop(wanted[-1].source, wanted[-1].layer, 100.0))
    assert value(replace(best, hops=wrong), wanted) == pytest.approx(1 - 0.5 / len(wanted))
    generator = np.random.default_rng(0)
    assert max(value(found.decode(generator.random(len(found.names))), wanted) for _ in range(50)) < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["slot", "matrix"])
def test_catcma_finds_better_paths_than_thresholds_do(kind: str) -> None:
    """At equal budgets, over five seeds; CMA-ES with margin does not in all settings: see docs/optimizers.md."""
    catcma, thresholds = (
        statistics.mean(searched(name, kind, seed, 900, 30, 0) for seed in range(1, 6)) for name in ("catcma", "cmaes")
    )
    assert catcma > thresholds + 0.02
