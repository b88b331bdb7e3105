"""The settings of an lm-eval task, under the options of its benchmark."""

from collections.abc import Mapping

from lm_eval.api.task import Task

from evohydra.scoring.benchmarks import BenchmarkError, Split
from evohydra.scoring.benchmarks.generation_settings import check_stops, over_task
from evohydra.scoring.benchmarks.lm_eval_options import TaskOptions
from evohydra.scoring.benchmarks.private_lm_eval import filters_of

FEWSHOT_SEED = 1234  # simple_evaluate's default


def configure(name: str, task: Task, options: TaskOptions) -> None:
    """Give a task the shots and generation settings of benchmark `name`; BenchmarkError where they do not fit."""
    if options.num_fewshot is not None or task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=options.num_fewshot or 0)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    check_stops(name, str(task.config.task), task.get_config("generation_kwargs") or {})
    if options.generation_kwargs:
        key = f"benchmark.{name}.generation_kwargs"
        if task.OUTPUT_TYPE != "generate_until":
            raise BenchmarkError(f"{key}: task {task.config.task} ({task.OUTPUT_TYPE}) generates nothing; drop it")
        merged = over_task(key, options.generation_kwargs, task.get_config("generation_kwargs") or {})
        task.set_config(key="generation_kwargs", value=merged)


def check_filter(name: str, tasks: Mapping[Split, Task], chosen: str | None) -> None:
    """BenchmarkError where a task has no filter of this name; None is its first one."""
    for split, task in tasks.items():
        known = filters_of(task)
        if chosen not in (None, *known):
            raise BenchmarkError(f"benchmark {name!r}, {split} split: filter {chosen!r} is none of {known}")
