"""What a worker asks for an audit: a recipe's model, or a checkpoint on disk, in the same way or another."""

from collections.abc import Sequence
from pathlib import Path

from evohydra.families import LiveModel
from evohydra.families.written import read_again
from evohydra.recipe import Node
from evohydra.scoring.benchmarks import Audited, Benchmark, Change, GivenAnswer, Split
from evohydra.scoring.benchmarks.sampling import own_randomness
from evohydra.scoring.worker import Worker


def asked(
    worker: Worker, recipe: Node, benchmark: str, split: Split, examples: Sequence[int], change: Change
) -> tuple[list[GivenAnswer], str | None]:
    """What the model of `recipe` writes to examples that are asked with a change; why there is nothing, else."""
    try:
        live = worker.become(recipe)
    except (ArithmeticError, ValueError, RuntimeError, MemoryError) as reason:  # an audit ends no run
        return [], f"{type(reason).__name__}: {reason}"
    return _told(worker.benchmarks[benchmark], live, split, examples, change)


def reloaded(
    worker: Worker, directory: Path, benchmark: str, split: Split, examples: Sequence[int]
) -> tuple[list[GivenAnswer], str | None]:
    """What the checkpoint, or adapter, in `directory` writes, read anew in the type that its files say."""
    try:
        live = read_again(worker.family, directory, worker.live.device)
    except (ArithmeticError, LookupError, ValueError, OSError, RuntimeError, MemoryError) as reason:
        return [], f"it could not be read beside the search's model ({type(reason).__name__}: {reason})"
    return _told(worker.benchmarks[benchmark], live, split, examples, "none")


def _told(
    benchmark: Benchmark, live: LiveModel, split: Split, examples: Sequence[int], change: Change
) -> tuple[list[GivenAnswer], str | None]:
    assert isinstance(benchmark, Audited)
    try:
        with own_randomness(benchmark.name, split):
            return benchmark.asked(live, split, examples, change), None
    except (ArithmeticError, ValueError, RuntimeError, MemoryError) as reason:
        return [], f"{type(reason).__name__}: {reason}"
