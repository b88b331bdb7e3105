"""The references of an lm-eval task, and how likely a model finds them."""

from collections.abc import Sequence

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.models.huggingface import HFLM
from numpy.typing import NDArray
from scipy.special import logsumexp

from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.likelihood import LOWEST, Per, Texts
from evohydra.scoring.benchmarks.lm_eval_metrics import BRIER, sign_of
from evohydra.scoring.benchmarks.not_numbers import check_choices, check_log_likelihoods
from evohydra.scoring.benchmarks.private_lm_eval import continuation_tokens, pair_tokens
from evohydra.scoring.benchmarks.token_texts import TokenText

KINDS = ("generate_until", "multiple_choice")


def refusal(task: Task) -> str | None:
    """Why right answers of this task have no likelihood that a search could follow; None where they have."""
    if not isinstance(task, ConfigurableTask):
        return "is a class of its own, which does not say what is right in a way that evohydra can read"
    if getattr(task, "MULTIMODAL", False):
        return "shows images, and lm-eval has no log-likelihoods for these"
    if task.OUTPUT_TYPE not in KINDS:
        return f"is of the type {task.OUTPUT_TYPE}, which is scored by log-likelihoods already; choose fitness=subset"
    return None


def check_references(name: str, task: Task, metric: str, documents: Sequence[object]) -> None:
    """BenchmarkError where the task has none, or one of `documents`, or where the `metric` does not grow with them."""
    reason = refusal(task)
    if reason is None and sign_of(task, metric) < 0 and metric != BRIER:
        reason = (
            f"is better if {metric!r} is lower, and the likelihood of its targets says nothing about that; choose "
            "fitness=full"
        )
    if reason:
        raise BenchmarkError(f"fitness=likelihood: the task of benchmark {name!r} {reason}")
    for place, document in enumerate(documents):
        right = gold(task, document) if task.OUTPUT_TYPE == "multiple_choice" else references(task, document)
        if not right:
            raise BenchmarkError(
                f"fitness=likelihood: example {place} of the search split of benchmark {name!r} has no right answer "
                f"(its target is {task.doc_to_target(document)!r}); expected one or more for every example"
            )


def check_verifiable(name: str, task: Task, metric: str) -> None:
    """BenchmarkError where nothing is written, or where the score of an answer does not say that it is right."""
    reason = refusal(task)
    if reason is None and task.OUTPUT_TYPE == "multiple_choice":
        reason = "chooses among given answers, so that there is no wording to verify; choose fitness.references=task"
    if reason is None and sign_of(task, metric) < 0:
        reason = f"is better if {metric!r} is lower; expected a metric that is 1 for a right answer"
    if reason is None and (task.config.repeats or 1) > 1:
        reason = f"asks each example {task.config.repeats} times and judges all answers together"
    if reason:
        raise BenchmarkError(f"fitness.references=verified: the task of benchmark {name!r} {reason}")


def references(task: ConfigurableTask, document: object) -> list[str]:
    """The right answers in words; empty ones are none."""
    target = task.doc_to_target(document)
    each = target if isinstance(target, list | tuple) else [target]
    return [text for text in dict.fromkeys(str(one) for one in each if one is not None) if text.strip()]


def gold(task: ConfigurableTask, document: object) -> list[int]:
    """The places of the right choices among all."""
    target = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    count = len(task.doc_to_choice(document))
    found = []
    for one in target if isinstance(target, list | tuple) else [target]:
        place = task.doc_to_choice(document).index(one) if one in task.doc_to_choice(document) else one
        if isinstance(place, int | np.integer) and 0 <= place < count:
            found.append(int(place))
    return found


def of_texts(
    lm: HFLM, task: ConfigurableTask, asked: Sequence[Sequence[Instance]], per: Per, *, templated: bool
) -> NDArray[np.float64]:
    """(n,): for the requests of each example the largest mean log-probability of a reference, in one batched pass.

    A reference follows the prompt after the task's target delimiter, as in few-shot examples, or at once, as models
    often answer: both forms are tried, and the likelier one counts. Where the prompt is a chat (`templated`) there is
    no delimiter.
    """
    delimiters = dict.fromkeys(["" if templated else task.config.target_delimiter, ""])
    pairs = [
        (place, (str(requests[0].args[0]), delimiter + text))
        for place, requests in enumerate(asked)
        for text in references(task, requests[0].doc)
        for delimiter in delimiters
    ]
    return _likeliest(lm, pairs, len(asked), per)


def of_written(
    lm: HFLM, asked: Sequence[Sequence[Instance]], examples: Sequence[int], per: Per, texts: Texts
) -> NDArray[np.float64]:
    """(n,): as `of_texts`, for answers as models write them, which follow the prompt at once.

    asked: the requests of all examples of a split; examples: the n that are wanted.
    """
    pairs = [
        (place, (str(asked[example][0].args[0]), text))
        for place, example in enumerate(examples)
        for text in texts[example]
    ]
    return _likeliest(lm, pairs, len(examples), per)


def _likeliest(lm: HFLM, pairs: Sequence[tuple[int, tuple[str, str]]], count: int, per: Per) -> NDArray[np.float64]:
    """(count,): of each place, the first of a pair, the largest mean log-probability of a text after its prompt."""
    instances = [Instance("loglikelihood", {}, pair, number) for number, (_, pair) in enumerate(pairs)]
    answers = lm.loglikelihood(instances, disable_tqdm=True)
    check_log_likelihoods(answers)
    best = np.full(count, -np.inf)
    for (place, pair), (total, _) in zip(pairs, answers, strict=True):
        length = continuation_tokens(lm, *pair) if per == "token" else len(pair[1].encode())
        best[place] = max(best[place], total / length)
    clipped: NDArray[np.float64] = np.clip(best, LOWEST, 0.0)
    return clipped


def of_choices(lm: HFLM, task: ConfigurableTask, asked: Sequence[Sequence[Instance]]) -> NDArray[np.float64]:
    """(n,): for the requests of each example the log-probability of the right choices among all."""
    flat = [request for requests in asked for request in requests[: _choices(task, requests)]]
    answers = iter(lm.loglikelihood(flat, disable_tqdm=True))
    found = np.empty(len(asked))
    for place, requests in enumerate(asked):
        told = [next(answers) for _ in range(_choices(task, requests))]
        check_log_likelihoods(told)
        check_choices([told])
        totals = np.array([total for total, _ in told])
        found[place] = logsumexp(totals[gold(task, requests[0].doc)]) - logsumexp(totals)
    return found.clip(LOWEST, 0.0)


def read_with_references(
    name: str, lm: HFLM, task: ConfigurableTask, asked: Sequence[Sequence[Instance]], *, templated: bool
) -> list[TokenText]:
    """Each example with its first reference behind it, or with its first right choice, see `token_texts.GivesTexts`."""
    found = []
    for place, requests in enumerate(asked):
        if task.OUTPUT_TYPE == "multiple_choice":
            pairs = [tuple(map(str, requests[right].args[:2])) for right in gold(task, requests[0].doc)]
        else:
            delimiter = "" if templated else task.config.target_delimiter
            pairs = [(str(requests[0].args[0]), delimiter + text) for text in references(task, requests[0].doc)]
        if not pairs:
            raise BenchmarkError(f"benchmark {name!r}: example {place} has no right answer that a model could read")
        context, answer = pair_tokens(lm, *pairs[0])
        tokens = (*context, *answer)[-lm.max_length :]
        found.append(TokenText(tokens, min(len(answer), len(tokens) - 1)))
    return found


def _choices(task: ConfigurableTask, requests: Sequence[Instance]) -> int:
    """How many of an example's requests are its choices; some metrics ask for each a second time without the prompt."""
    return len(task.doc_to_choice(requests[0].doc))
