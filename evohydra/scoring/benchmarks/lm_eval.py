"""The tasks and groups of lm-evaluation-harness as benchmarks; this module loads lm-eval only to make them."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from evohydra.checks import checked_by
from evohydra.files import Plain
from evohydra.scoring.benchmarks import SPLITS, BenchmarkError, Split
from evohydra.scoring.benchmarks.generation_settings import OF_TASKS, check_ahead
from evohydra.scoring.benchmarks.lm_eval_files import check_data, check_task
from evohydra.scoring.benchmarks.lm_eval_options import TaskOptions, task_options
from evohydra.scoring.benchmarks.splits import Slice, slice_of

if TYPE_CHECKING:
    from evohydra.scoring.benchmarks.lm_eval_benchmark import LMEvalBenchmark

logger = logging.getLogger(__name__)


def _check(prefix: str, settings: Plain) -> None:
    """What is wrong with the settings of a benchmark, as far as its options and the files of its tasks say it."""
    name = prefix.removeprefix("benchmark.")
    options = {key: value for key, value in settings.items() if key not in ("task", "splits")}
    chosen, slices = _parsed(name, settings["splits"], options)
    check_ahead(f"{prefix}.generation_kwargs", chosen.generation_kwargs or {}, OF_TASKS)
    for split, at in slices.items():
        check_data(at.data_files or chosen.data_files, chosen.data_dir, chosen.include_path)
        key = f"{prefix}.splits.{split}.task" if at.task else f"{prefix}.task"
        check_task(key, f"benchmark {name!r}, {split} split", at.task or settings["task"], chosen)


def _parsed(name: str, splits: Mapping[str, Plain | None], options: Plain) -> tuple[TaskOptions, dict[Split, Slice]]:
    """The options and the splits of the benchmark `name`; BenchmarkError and ValueError for wrong ones."""
    chosen = task_options(name, options)
    if sorted(splits) != sorted(SPLITS):
        raise BenchmarkError(f"benchmark {name!r}: expected the splits {', '.join(SPLITS)}, got {sorted(splits)}")
    if splits["search"] is None or splits["test"] is None:
        raise BenchmarkError(f"benchmark {name!r}: only the validation split may be null")
    return chosen, {
        split: slice_of(f"benchmark.{name}.splits.{split}", at) for split in SPLITS if (at := splits[split]) is not None
    }


@checked_by(_check)
def lm_eval_benchmarks(
    name: str, *, task: str, splits: Mapping[str, Plain | None], **options: object
) -> "dict[str, LMEvalBenchmark]":
    """A benchmark for each leaf of `task`, by name: one for a task, several for a group.

    `splits` gives a `Slice` for search, validation (or None: no validation) and test. Raises BenchmarkError for unknown
    tasks, metrics and filters (with the known ones), data that cannot be had, and splits that are empty or overlap.
    """
    from evohydra.scoring.benchmarks.lm_eval_benchmark import LMEvalBenchmark
    from evohydra.scoring.benchmarks.lm_eval_loading import load_tasks, unequal

    chosen, slices = _parsed(name, splits, options)
    loaded = {
        split: load_tasks(at.task or task, at.data_files or chosen.data_files, chosen.data_dir, chosen.include_path)
        for split, at in slices.items()
    }
    leaves = {split: each.tasks for split, each in loaded.items()}
    if len({len(tasks) for tasks in leaves.values()}) > 1:
        raise BenchmarkError(f"benchmark {name!r}: its splits have different numbers of tasks: {leaves}")
    benchmarks = {}
    for position, leaf in enumerate(leaves["search"]):
        label = name if len(leaves["search"]) == 1 else f"{name}/{leaf}"
        tasks = {split: list(leaves[split].values())[position] for split in slices}
        benchmarks[label] = LMEvalBenchmark(label, tasks, slices, chosen)
    if loaded["search"].by_size and (said := unequal(name, {n: b.size("search") for n, b in benchmarks.items()})):
        logger.warning("%s", said)
    return benchmarks
