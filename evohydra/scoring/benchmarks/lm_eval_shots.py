"""Few-shot examples of lm-eval's tasks: none of them is an example of a split."""

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.samplers import FirstNSampler
from lm_eval.api.task import ConfigurableTask, Task

from evohydra.scoring.benchmarks import BenchmarkError, Split
from evohydra.scoring.benchmarks.images import text_of
from evohydra.scoring.benchmarks.private_lm_eval import set_shots_of_class, shots_of_class

logger = logging.getLogger(__name__)


class Asked:
    """The examples of all splits, by what they hold and by what they ask."""

    def __init__(self, tasks: Mapping[Split, Task], indices: Mapping[Split, Sequence[int]]) -> None:
        self._documents: set[str] = set()
        self._targets: dict[object, set[str]] = {}  # of each question; one of several says nothing by itself
        for split, task in tasks.items():
            for index in indices[split]:
                doc = task.eval_docs[index]
                self._documents.add(text_of(doc))
                if (question := _question(task, doc)) is not None:
                    self._targets.setdefault(question, set()).add(_target(task, doc))

    def holds(self, task: Task, doc: Any) -> bool:
        """Whether a few-shot document is one of the examples, or asks what one of them asks."""
        if text_of(doc) in self._documents:
            return True
        question = _question(task, doc, shot=True)
        targets = self._targets.get(question, set())
        return len(targets) == 1 or (len(targets) > 1 and _target(task, doc, shot=True) in targets)


def keep_shots_apart(name: str, tasks: Mapping[Split, Task], indices: Mapping[Split, Sequence[int]]) -> None:
    """Take the examples of all splits out of the documents that few-shot examples are drawn from.

    Where there are none among them, the same are drawn as by lm-eval. Raises BenchmarkError where too few are left.
    """
    shown = {split: task for split, task in tasks.items() if _shots(task)}
    if not shown:
        return
    asked = Asked(tasks, indices)
    left_out: dict[tuple[int, int], list[str]] = {}  # by numbers of documents: the splits
    for split, task in shown.items():
        documents = shots_of(task)
        apart = [doc for doc in documents if not asked.holds(task, doc)]
        needed = _shots(task) + _drawn_besides(task)
        if len(apart) < needed:
            raise BenchmarkError(
                f"benchmark {name!r}, {split} split: {_shots(task)} few-shot examples need {needed} documents that are "
                f"in no split, but of the task's {len(documents)} documents for them {len(apart)} are in none; give "
                f"them a file of their own (benchmark.{name}.data_files={{train: FILE, test: FILE}}, where the task "
                "has a split for them), leave examples out of the splits (start, stop or limit), or set num_fewshot=0"
            )
        if len(apart) < len(documents):
            left_out.setdefault((len(documents) - len(apart), len(documents)), []).append(split)
            if isinstance(task, ConfigurableTask):
                task.sampler = copy.copy(task.sampler).replace_df(apart)
                task.sampler.fewshot_indices = None  # they have chosen already
            else:
                set_shots_of_class(task, apart)
    for (count, of), splits in left_out.items():
        logger.warning(
            "benchmark %r (%s): %d of %d documents for few-shot examples are examples of a split; they are left out of "
            "the few-shot examples",
            *(name, ", ".join(splits), count, of),
        )


def shots_of(task: Task) -> list[object]:
    """The documents that the few-shot examples of a task are drawn from."""
    if isinstance(task, ConfigurableTask):
        return list(task.sampler.fewshot_docs()) if hasattr(task, "sampler") else []
    return shots_of_class(task)


def shown_questions(task: Task) -> list[str]:
    """The questions of the documents that few-shot examples are drawn from, where the task shows any."""
    return [str(task.doc_to_text(doc)) for doc in shots_of(task)] if _shots(task) else []


def _shots(task: Task) -> int:
    return int(task.get_config("num_fewshot") or 0)


def _drawn_besides(task: Task) -> int:
    """lm-eval draws one more where the example itself might be among them."""
    if not isinstance(task, ConfigurableTask):
        return 0 if task.has_training_docs() else 1
    same = task.fewshot_cfg.split == task.config.test_split
    return int(same and not isinstance(task.sampler, FirstNSampler))


def _question(task: Task, doc: Any, shot: bool = False) -> object:
    """What a document asks, as it is shown; None where this is no text, or says too little."""
    if getattr(task, "MULTIMODAL", False):
        return None
    if not isinstance(task, ConfigurableTask):
        text = task.doc_to_text(doc)
    elif task.multiple_input:
        text = "\n".join(map(str, task.doc_to_choice(doc, task.fewshot_cfg.doc_to_choice if shot else None)))
    else:
        text = task.doc_to_text(doc, task.fewshot_cfg.doc_to_text if shot else None)
    return text.strip() or None if isinstance(text, str) else None


def _target(task: Task, doc: Any, shot: bool = False) -> str:
    if not isinstance(task, ConfigurableTask):
        return str(task.doc_to_target(doc))
    return str(task.doc_to_target(doc, task.fewshot_cfg.doc_to_target if shot else None))
