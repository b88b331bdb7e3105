"""What models were trained to be asked with, and whether a benchmark asks so."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from evohydra.scoring.benchmarks import BenchmarkError

if TYPE_CHECKING:  # it takes seconds to import
    from lm_eval.api.instance import Instance

QUESTION = "{question}"  # where the question stands in a format
CHAT = "chat"  # instead of a format: the chat template of the model's own tokenizer


def check_format(key: str, text: str | None) -> None:
    """BenchmarkError, which names `key`, for a format in which no question or more than one stands."""
    if text is not None and text.count(QUESTION) != 1:
        raise BenchmarkError(f"{key}: expected a text with {QUESTION} in it once, got {text!r}")


def marks(text: str) -> tuple[str, ...]:
    """What a model knows a format by: the line before the question, and the one after it; those that are there."""
    before, _, after = text.partition(QUESTION)
    lines = (before.strip().splitlines()[-1:], after.strip().splitlines()[:1])
    return tuple(line.strip() for found in lines for line in found if line.strip())


def asks_as(asked: str, text: str) -> bool:
    """Whether a prompt `asked` has the marks of the format `text`, in their order."""
    at = 0
    for mark in marks(text):
        if (found := asked.find(mark, at)) < 0:
            return False
        at = found + len(mark)
    return True


def wrap(instances: "Iterable[Instance]", text: str, name: str) -> None:
    """Put each prompt, with all shots before it, in the place of the question of the format `text`.

    Raises BenchmarkError for requests without a prompt.
    """
    for instance in instances:
        if instance.request_type == "loglikelihood_rolling":
            raise BenchmarkError(f"benchmark.{name}.prompt_format: the task asks for whole texts, which have no prompt")
        context, *others = instance.arguments
        instance.arguments = (text.replace(QUESTION, context), *others)
