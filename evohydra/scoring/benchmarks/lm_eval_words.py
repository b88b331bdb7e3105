"""lm-eval's documents and responses in words, for readers."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask, Task

from evohydra.scoring.benchmarks import Lengths
from evohydra.scoring.benchmarks.generation_settings import LENGTHS as LIMITS

# By what a metric divides the log-likelihood of a choice before it takes the largest.
LENGTHS: Mapping[str, Callable[[str], int]] = {
    "acc_norm": len,
    "acc_bytes": lambda choice: len(choice.encode()),
}
USUAL_LIMIT = 256  # tokens of an answer, in lm-eval
MUTUAL_INFORMATION = "acc_mutual_info"  # asks for each choice a second time, without the prompt


def described(task: Task, doc: object) -> tuple[str, str]:
    """The prompt of a document without shots, and its target or right choice.

    Where choices are beginnings with one continuation, as in Winogrande, they are the choices, and it is the prompt.
    """
    if isinstance(task, ConfigurableTask) and task.multiple_input:
        return str(task.doc_to_target(doc)), str(task.doc_to_choice(doc)[task.doc_to_text(doc)])
    target = task.doc_to_target(doc)
    if isinstance(target, int) and task.OUTPUT_TYPE == "multiple_choice":
        target = task.doc_to_choice(doc)[target]
    return str(task.doc_to_text(doc)), " / ".join(map(str, target)) if isinstance(target, list) else str(target)


def lengths_of(task: Task, docs: Sequence[object], tokens: Callable[[str], int]) -> Lengths:
    """How long documents are, see `Lengths`; shots are as long as they are."""
    words = [described(task, doc) for doc in docs]
    prompt, target = (float(np.mean([tokens(text) for text in texts])) for texts in zip(*words, strict=True))
    shots = task.get_config("num_fewshot") or 0
    settings = task.get_config("generation_kwargs") or {}
    chooses = task.OUTPUT_TYPE == "multiple_choice"
    passes = float(np.mean([len(task.doc_to_choice(doc)) for doc in docs])) if chooses else 1.0
    limit = next((int(settings[name]) for name in LIMITS if name in settings), USUAL_LIMIT)
    longest = max(tokens(text) for _, text in words)
    writes = task.OUTPUT_TYPE == "generate_until"
    beams = int(settings.get("num_beams") or 1)
    return Lengths(prompt + shots * (prompt + target), target, longest, limit, passes, writes, beams)


def answered(task: Task, metric: str, asked: Sequence[Sequence[Instance]]) -> list[str]:
    """What a model has written to the requests of each document; where it chooses, the choice that `metric` counts."""
    return [_answered(task, metric, instances) for instances in asked]


def _answered(task: Task, metric: str, instances: Sequence[Instance]) -> str:
    if instances[0].request_type == "generate_until":
        return str(instances[0].resps[0])
    totals = np.array([instance.resps[0][0] for instance in instances])
    if not isinstance(task, ConfigurableTask) or task.OUTPUT_TYPE != "multiple_choice":
        return str(instances[int(np.argmax(totals))].arguments[1])
    choices = [str(choice) for choice in task.doc_to_choice(instances[0].doc)]
    alone, totals = totals[len(choices) :], totals[: len(choices)]
    if metric == MUTUAL_INFORMATION:
        totals = totals - alone
    if metric in LENGTHS:
        totals = totals / np.array([LENGTHS[metric](choice) for choice in choices])
    chosen = int(np.argmax(totals))
    return choices[chosen] if task.multiple_input else str(instances[chosen].arguments[1])
