"""Which metrics of lm-eval are means over examples, and which way each is better; the others are refused.

A search compares genomes example by example, so that a metric must be a number for each example, and the metric of a
split the mean of these.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from lm_eval.api import metrics
from lm_eval.api.registry import AGGREGATION_REGISTRY, METRIC_REGISTRY
from lm_eval.api.task import ConfigurableTask, Task

from evohydra.scoring.benchmarks import BenchmarkError, Split

# What a Task without `process_results` of its own gives for each example: numbers, and else what only an aggregation
# over all of them turns into one.
NUMBERS = {
    "loglikelihood": {"acc", "perplexity"},
    "loglikelihood_rolling": set[str](),
    "multiple_choice": {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"},
}
SAMPLES = ([0.0, 1.0, 1.0, 0.25], [3.0, -2.5, 10.0], [0.5], [1.0, 0.0, 0.0, 0.0, 0.0])


def chosen_metric(name: str, tasks: Mapping[Split, Task], wanted: str | None) -> str:
    """The metric that counts: `wanted`, or the only one; BenchmarkError where a split cannot be scored by it."""
    known = sorted(tasks["search"].higher_is_better())
    metric = wanted or (known[0] if len(known) == 1 else None)
    for split, task in tasks.items():
        known = sorted(task.higher_is_better())
        if metric is None or metric not in known:
            raise BenchmarkError(f"benchmark {name!r}, {split} split: metric {metric!r} is none of {known}")
        if reason := refusal(task, metric):
            working = [each for each in known if refusal(task, each) is None]
            raise BenchmarkError(
                f"benchmark {name!r}, {split} split: {reason}. Metrics of this task that can be searched for: {working}"
            )
    assert metric is not None
    return metric


def refusal(task: Task, metric: str) -> str | None:
    """Why the task's `metric` cannot be searched for; None where it can."""
    aggregate = task.aggregation().get(metric)
    name, what = _name(aggregate), f"metric {metric!r}, with the aggregation {_name(aggregate)!r},"
    if not isinstance(task.higher_is_better().get(metric), bool):
        return f"{what} does not say whether higher is better (higher_is_better: true or false)"
    if name != "perplexity" and not _is_mean(aggregate):
        return f"{what} is not the mean of a number for each example"
    if not isinstance(task, ConfigurableTask) or task.config.process_results is not None:
        return None  # what it gives is seen at the first example, and checked there
    kind = str(task.OUTPUT_TYPE)
    own = metric in METRIC_REGISTRY and getattr(METRIC_REGISTRY[metric], "__module__", "") == metrics.__name__
    if metric not in NUMBERS[kind] if kind in NUMBERS else own and metric != "exact_match":
        return f"{what} has no number for each example in a task of the type {kind}"
    return None


def sign_of(task: Task, metric: str) -> float:
    """By what a number of an example is multiplied so that larger is better.

    Those of a perplexity are log-likelihoods, from which it falls.
    """
    sign = 1.0 if task.higher_is_better()[metric] else -1.0
    return -sign if _name(task.aggregation().get(metric)) == "perplexity" else sign


def leaves_out(task: Task, metric: str) -> bool:
    """Whether the mean is taken without the examples that have no number."""
    return _name(task.aggregation().get(metric)) == "nanmean"


def _name(aggregate: Callable[..., Any] | None) -> str:
    known = {id(AGGREGATION_REGISTRY[name]): name for name in AGGREGATION_REGISTRY}
    name: str = known.get(id(aggregate), str(getattr(aggregate, "__name__", aggregate)))
    return name


def _is_mean(aggregate: Callable[[Sequence[float]], Any] | None) -> bool:
    """Whether it gives the means of some lists of numbers."""
    if aggregate is None:
        return False
    with suppress(Exception):  # a function of anyone's
        return all(bool(np.isclose(aggregate(list(each)), np.mean(each), rtol=1e-12)) for each in SAMPLES)
    return False
