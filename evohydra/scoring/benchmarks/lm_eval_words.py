"""lm-eval's documents and responses in words, for readers."""

from collections.abc import Sequence

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task


def described(task: Task, doc: object) -> tuple[str, str]:
    """The prompt of a document without shots, and its target or right choice."""
    target = task.doc_to_target(doc)
    if isinstance(target, int) and task.OUTPUT_TYPE == "multiple_choice":
        target = task.doc_to_choice(doc)[target]
    return str(task.doc_to_text(doc)), " / ".join(map(str, target)) if isinstance(target, list) else str(target)


def answered(instances: Sequence[Instance]) -> str:
    """What a model has written to the requests of a document; where it chooses, the most likely continuation."""
    if instances[0].request_type == "generate_until":
        return str(instances[0].resps[0])
    return str(max(instances, key=lambda instance: instance.resps[0][0]).arguments[1])
