"""Parts of lm-eval that are not in its documentation."""

from collections.abc import Iterable
from typing import Any

from lm_eval.api.task import Task
from lm_eval.tasks._index import Kind
from lm_eval.tasks._yaml_loader import load_yaml

from evohydra.libraries import PrivateParts

TESTED = "0.4.13"
PARTS = (
    PrivateParts("lm-eval", TESTED, "lm_eval.tasks._index:Kind", ("GROUP", "TAG")),
    PrivateParts("lm-eval", TESTED, "lm_eval.tasks._yaml_loader", ("load_yaml",)),
    PrivateParts("lm-eval", TESTED, "lm_eval.api.task:Task()", ("_filters", "_instances")),
    # Overridden by the live models: under another name they would not be called.
    PrivateParts(
        "lm-eval", TESTED, "lm_eval.models.huggingface:HFLM", ("_encode_pair", "_model_call", "_model_generate")
    ),
    PrivateParts(
        "lm-eval", TESTED, "lm_eval.models.hf_vlms:HFMultimodalLM", ("_create_tokenizer", "_model_multimodal_generate")
    ),
)
__all__ = ["PARTS", "Kind", "continuation_tokens", "filters_of", "load_yaml", "set_instances"]


def filters_of(task: Task) -> list[str]:
    """The names of the task's filters."""
    return [ensemble.name for ensemble in task._filters]


def set_instances(task: Task, instances: Iterable[object]) -> None:
    """Let the task ask these requests only."""
    task._instances = list(instances)


def continuation_tokens(lm: Any, context: str, continuation: str) -> int:
    """How many tokens the log-likelihood of `continuation` after `context` is the sum of."""
    return len(lm._encode_pair(context, continuation)[1])
