"""Parts of lm-eval that are not in its documentation."""

import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.registry import METRIC_REGISTRY
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.tasks._index import Kind
from lm_eval.tasks._yaml_loader import load_yaml

from evohydra.checks.libraries import PrivateParts

TESTED = "0.4.13"
PARTS = (
    PrivateParts("lm-eval", TESTED, "lm_eval.utils", ("env", "apply_template")),
    PrivateParts("lm-eval", TESTED, "lm_eval.tasks._index:Kind", ("GROUP", "TAG")),
    PrivateParts("lm-eval", TESTED, "lm_eval.tasks._yaml_loader", ("load_yaml",)),
    PrivateParts(
        "lm-eval",
        TESTED,
        "lm_eval.api.task:Task()",
        (
            "_filters",
            "_instances",
            "_training_docs",
            "_fewshot_docs",
            "_metric_fn_list",
            "_aggregation_list",
            "_higher_is_better",
        ),
    ),
    # Overridden by the live models: under another name they would not be called.
    PrivateParts(
        "lm-eval", TESTED, "lm_eval.models.huggingface:HFLM", ("_encode_pair", "_model_call", "_model_generate")
    ),
    PrivateParts(
        "lm-eval", TESTED, "lm_eval.models.hf_vlms:HFMultimodalLM", ("_create_tokenizer", "_model_multimodal_generate")
    ),
)
__all__ = [
    "PARTS",
    "Kind",
    "compile_templates_once",
    "continuation_tokens",
    "filters_of",
    "functions_of",
    "let_give",
    "load_yaml",
    "pair_tokens",
    "set_instances",
    "set_shots_of_class",
    "shots_of_class",
]


@functools.cache
def compile_templates_once() -> None:
    """Let lm-eval compile a template of a prompt once in this process.

    It compiles each template for each example. With short examples that is a large part of the time before a search.
    """
    utils.env.from_string = functools.lru_cache(maxsize=1000)(utils.env.from_string)


def filters_of(task: Task) -> list[str]:
    """The names of the task's filters."""
    return [ensemble.name for ensemble in task._filters]


def functions_of(task: Task) -> list[str]:
    """The metrics of a generating task that are functions of its own; each may give several numbers by name."""
    if not isinstance(task, ConfigurableTask) or task.OUTPUT_TYPE != "generate_until":
        return []
    known = {name: function for name, function in task._metric_fn_list.items() if function is not None}
    return [name for name in known if name not in METRIC_REGISTRY]


def let_give(task: ConfigurableTask, metric: str, function: str) -> None:
    """Let `metric` be one of the numbers that `function` gives, with its aggregation and direction.

    lm-eval does so itself when it has seen the numbers of an example.
    """
    task._aggregation_list.setdefault(metric, task._aggregation_list[function])
    task._higher_is_better.setdefault(metric, task._higher_is_better[function])


def set_instances(task: Task, instances: Iterable[object]) -> None:
    """Let the task ask these requests only."""
    task._instances = list(instances)


def shots_of_class(task: Task) -> list[object]:
    """The documents that a task which is a class of its own draws few-shot examples from."""
    if task.has_training_docs():
        return list(task.training_docs() if task._training_docs is None else task._training_docs)
    if task._fewshot_docs is None:
        return list(task.validation_docs() if task.has_validation_docs() else task.test_docs())
    return list(task._fewshot_docs)


def set_shots_of_class(task: Task, documents: list[object]) -> None:
    """Let such a task draw them from `documents`."""
    if task.has_training_docs():
        task._training_docs = documents
    else:
        task._fewshot_docs = documents


def continuation_tokens(lm: Any, context: str, continuation: str) -> int:
    """How many tokens the log-likelihood of `continuation` after `context` is the sum of."""
    return len(lm._encode_pair(context, continuation)[1])


def pair_tokens(lm: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The tokens of a text and of what follows it, cut as lm-eval cuts them for log-likelihoods."""
    before, after = lm._encode_pair(context, continuation)
    return before, after


def by_document(instances: Sequence[Instance]) -> list[list[Instance]]:
    """The requests of each example."""
    found: dict[int, list[object]] = defaultdict(list)
    for instance in instances:
        found[instance.doc_id].append(instance)
    return list(found.values())
