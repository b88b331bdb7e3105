"""Parts of lm-eval that are not in its documentation."""

from collections.abc import Iterable

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
    PrivateParts("lm-eval", TESTED, "lm_eval.models.huggingface:HFLM", ("_model_call", "_model_generate")),
    PrivateParts(
        "lm-eval", TESTED, "lm_eval.models.hf_vlms:HFMultimodalLM", ("_create_tokenizer", "_model_multimodal_generate")
    ),
)
__all__ = ["PARTS", "Kind", "filters_of", "load_yaml", "set_instances"]


def filters_of(task: Task) -> list[str]:
    """The names of the task's filters."""
    return [ensemble.name for ensemble in task._filters]


def set_instances(task: Task, instances: Iterable[object]) -> None:
    """Let the task ask these requests only."""
    task._instances = list(instances)
