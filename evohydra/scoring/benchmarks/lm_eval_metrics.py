"""Which metrics of lm-eval are means over examples, and which way each is better; the others are refused.

A search compares genomes example by example, so that a metric must be a number for each example, and the metric of a
split the mean of these.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from lm_eval.api import metrics
from lm_eval.api.registry import AGGREGATION_REGISTRY, METRIC_REGISTRY
from lm_eval.api.task import ConfigurableTask, Task
from numpy.typing import NDArray

from evohydra.scoring.benchmarks import BenchmarkError, Split
from evohydra.scoring.benchmarks.private_lm_eval import by_document, functions_of, let_give

logger = logging.getLogger(__name__)
# What a Task without `process_results` of its own gives for each example: numbers, and else what only an aggregation
# over all of them turns into one.
NUMBERS = {
    "loglikelihood": {"acc", "perplexity"},
    "loglikelihood_rolling": {"word_perplexity", "byte_perplexity", "bits_per_byte"},
    "multiple_choice": {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"},
}
# Of log-likelihoods, from which each of these falls, whatever higher_is_better says. `weighted` ones are pairs with a
# number of words or bytes, whose sum over a split is the same for all models: the sum of log-likelihoods decides.
PERPLEXITIES = {"perplexity": False, "weighted_perplexity": True, "bits_per_byte": True}
BRIER = "brier_score"
LOG_LIKELIHOOD = "log-likelihood"
ROUNDING = 1e-3  # by which a sum of logarithms of probabilities may be above 0
MOST_PROBED = 50  # documents
PROBES = (-1.0, -3.5)  # log-likelihoods, to see what a task makes of them
SINGLE = bool | int | float | np.number | np.bool_  # a number for an example
# Lists that tell a mean from a median, and from a mean of those that are neither among the largest nor the smallest.
SAMPLES = (
    [0.0, 1.0, 1.0, 0.25],
    [3.0, -2.5, 10.0],
    [0.5],
    [1.0, 0.0, 0.0, 0.0, 0.0],
    [float(number % 7) ** 3 for number in range(500)] + [1e4, -5e3],
)


def chosen_metric(name: str, tasks: Mapping[Split, Task], wanted: str | None) -> str:
    """The metric that counts: `wanted`, or the only one; BenchmarkError where a split cannot be scored by it."""
    for task in tasks.values():
        _let_functions_give(task, wanted)
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
    measures = {split: measure_of(task, metric) for split, task in tasks.items()}
    if len(set(measures.values())) > 1:
        raise BenchmarkError(
            f"benchmark {name!r}: expected one measure of the metric {metric!r} in all splits, got {measures}"
        )
    if metric in NUMBERS["multiple_choice"] and not tasks["search"].higher_is_better()[metric]:
        logger.warning(
            "benchmark %r: its task says that a lower %s is better; the search looks for models that get it wrong",
            *(name, metric),
        )
    return metric


def _let_functions_give(task: Task, metric: str | None) -> None:
    """Let `metric` be a number that a function of the task gives by name, if it is no metric by itself.

    Whether it gives one is seen at the first example. Where several functions may, and disagree in how it is better,
    it stays unknown.
    """
    functions = functions_of(task)
    rules = {(task.higher_is_better().get(each), _name(task.aggregation().get(each))) for each in functions}
    if metric is not None and metric not in task.higher_is_better() and len(rules) == 1:
        let_give(task, metric, functions[0])


def refusal(task: Task, metric: str) -> str | None:
    """Why the task's `metric` cannot be searched for; None where it can."""
    aggregate = task.aggregation().get(metric)
    name, what = _name(aggregate), f"metric {metric!r}, with the aggregation {_name(aggregate)!r},"
    if not isinstance(task.higher_is_better().get(metric), bool):
        return f"{what} does not say whether higher is better (higher_is_better: true or false)"
    processed = not isinstance(task, ConfigurableTask) or task.config.process_results is not None
    higher = task.higher_is_better()[metric]
    if name in PERPLEXITIES and higher:
        return f"{what} is the better the lower it is, and the task says that higher is better"
    if PERPLEXITIES.get(name) and processed and not _passes_on(task, metric):
        return f"{what} weights examples by numbers of the task's own, which may depend on the answers"
    if name == BRIER and metric == BRIER and not processed:
        return f"{what} is the better the lower it is, and the task says that higher is better" if higher else None
    if name not in PERPLEXITIES and not _is_mean(aggregate):
        return f"{what} is not the mean of a number for each example"
    if processed:
        return None  # what it gives is seen at the first example, and checked there
    kind = str(task.OUTPUT_TYPE)
    if (kind, metric) == ("loglikelihood", "perplexity") and name not in PERPLEXITIES and not higher:
        return f"{what} is the mean of log-likelihoods, of which higher is better, and the task says that lower is"
    own = metric in METRIC_REGISTRY and getattr(METRIC_REGISTRY[metric], "__module__", "") == metrics.__name__
    if metric not in NUMBERS[kind] if kind in NUMBERS else own and metric != "exact_match":
        return f"{what} has no number for each example in a task of the type {kind}"
    return None


def sign_of(task: Task, metric: str) -> float:
    """By what a number of an example is multiplied so that larger is better; log-likelihoods are so already."""
    if _name(task.aggregation().get(metric)) in PERPLEXITIES:
        return 1.0
    return 1.0 if task.higher_is_better()[metric] else -1.0


def measure_of(task: Task, metric: str) -> str:
    """What the number of an example is called: of a perplexity it is the log-likelihood."""
    return LOG_LIKELIHOOD if _name(task.aggregation().get(metric)) in PERPLEXITIES else metric


def of_example(task: Task, metric: str, value: object) -> object:
    """The number of an example, of what the task gives for it: the log-likelihood of a pair, the square of a forecast.

    Anything else is given back as it is.
    """
    name = _name(task.aggregation().get(metric))
    if not isinstance(value, tuple) or len(value) != 2:
        return value
    if PERPLEXITIES.get(name):
        return value[0]
    if name == BRIER and isinstance(value[0], int):
        gold, forecast = value
        return float(((np.asarray(forecast, dtype=np.float64) - np.eye(len(forecast))[gold]) ** 2).sum())
    return value


def leaves_out(task: Task, metric: str) -> bool:
    """Whether the mean is taken without the examples that have no number."""
    aggregate = task.aggregation().get(metric)
    with suppress(Exception):  # a function of anyone's
        return aggregate is not None and bool(np.isfinite(aggregate([1.0, math.nan])))
    return False


def _passes_on(task: Task, metric: str) -> bool:
    """Whether a task's own `process_results` gives log-likelihoods as they are, with weights that they do not change.

    Tried on documents from all over the task.
    """
    given: Mapping[str, Callable[[float], object]] = {
        "loglikelihood_rolling": lambda total: (total,),
        "loglikelihood": lambda total: ((total, False),),
    }
    as_answered = given.get(str(task.OUTPUT_TYPE))
    if as_answered is None:
        return False
    count = len(task.eval_docs)
    with suppress(Exception):  # a function of anyone's
        for index in range(0, count, max(1, count // MOST_PROBED)):
            (one, weight), (two, same) = (
                task.process_results(task.eval_docs[index], as_answered(probe))[metric] for probe in PROBES
            )
            if (one, two) != PROBES or weight != same:
                return False
        return True
    return False


def _name(aggregate: Callable[..., object] | None) -> str:
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


def scores_of(name: str, task: Task, metric: str, chosen: str | None) -> NDArray[np.float64]:
    """(n,): the metric for each example that was asked, negated where lower is better.

    chosen: the filter, None for the first one. BenchmarkError, about benchmark `name`, where there is no number.
    """
    kind = chosen or next(iter(task.instances[0].filtered_resps))
    sign = sign_of(task, metric)
    scores: list[float] = []
    for instances in by_document(task.instances):
        instances.sort(key=lambda instance: instance.idx)
        results = task.process_results(instances[0].doc, [i.filtered_resps[kind] for i in instances])
        scores.append(sign * _number(name, task, metric, results))
    if leaves_out(task, metric) and np.isnan(scores).any():
        raise BenchmarkError(
            f"benchmark {name!r}: metric {metric!r} has no number for an example, which lm-eval would leave out of the "
            "mean; a search needs one for each"
        )
    return np.array(scores)


def _number(name: str, task: Task, metric: str, results: Mapping[str, object]) -> float:
    value = of_example(task, metric, results.get(metric))
    if isinstance(value, SINGLE):
        if measure_of(task, metric) == LOG_LIKELIHOOD and float(value) > ROUNDING:
            raise BenchmarkError(
                f"benchmark {name!r}: metric {metric!r} is made a perplexity of, and gives {float(value):.6g} for an "
                "example; expected a log-likelihood, which is 0 or less"
            )
        return float(value)
    numeric = sorted(key for key, v in results.items() if isinstance(v, SINGLE))
    raise BenchmarkError(
        f"benchmark {name!r}: metric {metric!r} gives {value!r} for an example, not a number; it can only be computed "
        f"for all examples at once. Metrics with a number for each example: {numeric}"
    )
