"""Requests of lm-eval's tasks: how they are answered, how answers ended, and the same examples asked in another way."""

import copy
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task

from evohydra.scoring.benchmarks import BenchmarkError, Change, GivenAnswer
from evohydra.scoring.benchmarks.generation_settings import LENGTHS

FIELD = re.compile(r"\{(\w+)\}")  # of a document, in a second prompt
GENERATES = "generate_until"


def answer(lm: object, task: Task) -> None:
    """Have the model answer all instances of the task, and apply the task's filters."""
    by_type: dict[str, list[Instance]] = defaultdict(list)
    for instance in task.instances:
        by_type[instance.request_type] += [instance] * instance.repeats
    for request_type, instances in by_type.items():
        responses = getattr(lm, request_type)(instances, disable_tqdm=True)
        for instance, response in zip(instances, responses, strict=True):
            instance.resps.append(response)
    task.apply_filters()


def ends_of(lm: object, instances: Sequence[Instance]) -> tuple[int, int, int]:
    """Of answers that were written: how many, how many of them reached the limit of tokens, and their tokens."""
    known = _known(lm)
    ends = [known[each.args[0]] for each in instances if each.request_type == GENERATES and each.args[0] in known]
    return len(ends), sum(cut for _, cut in ends), sum(tokens for tokens, _ in ends)


def lacking(task: Task, change: Change, second_prompt: str | None) -> str | None:
    """Why the examples of a task cannot be asked with this change; None where they can."""
    if task.OUTPUT_TYPE != GENERATES:
        return "its models choose among answers and write none"
    if change == "wording" and not second_prompt:
        return "it has no second wording of its prompt (second_prompt)"
    return None


def changed(
    lm: object, task: Task, requests: Sequence[object], change: Change, second_prompt: str | None
) -> list[object]:
    """The requests of an example with twice the limit of tokens, or with the last prompt in other words.

    BenchmarkError for a second prompt that names what the document lacks, or where the prompt is not found.
    """
    made: list[object] = []
    for request in requests:
        assert isinstance(request, Instance)
        prompt, *others = request.arguments
        if change == "length":
            settings = dict(others[0])
            limit = next((settings[name] for name in LENGTHS if name in settings), getattr(lm, "max_gen_toks", 256))
            others = [{**{k: v for k, v in settings.items() if k not in LENGTHS}, LENGTHS[0]: 2 * int(limit)}]
        elif change == "wording":
            prompt = reworded(
                str(task.config.task), prompt, str(task.doc_to_text(request.doc)), request.doc, second_prompt
            )
        twin = copy.copy(request)
        twin.arguments = (prompt, *others)
        twin.resps, twin.filtered_resps = [], {}
        made.append(twin)
    return made


def reworded(task: str, prompt: str, own: str, doc: Mapping[str, object], second_prompt: str | None) -> str:
    """A prompt whose last part, the question `own` as the task asks it, is asked as `second_prompt` says."""
    missing = [name for name in FIELD.findall(second_prompt or "") if name not in doc]
    if second_prompt is None or missing:
        raise BenchmarkError(f"second_prompt: expected names of fields of {task}, {sorted(doc)}, got {missing}")
    before, found, after = prompt.rpartition(own)
    if not found:
        raise BenchmarkError(f"second_prompt: the question of {task} is not found in its own prompt, {prompt[-80:]!r}")
    return before + FIELD.sub(lambda match: str(doc[match[1]]), second_prompt) + after


def given_answers(
    lm: object, requests: Sequence[Sequence[object]], texts: Sequence[str], scores: Sequence[float], chosen: str | None
) -> list[GivenAnswer]:
    """The answer to each example, whose requests have been answered; `chosen` is the filter, None: the first one."""
    known, found = _known(lm), []
    for each, text, score in zip(requests, texts, scores, strict=True):
        first = each[0]
        assert isinstance(first, Instance)
        extracted = None
        if first.request_type == GENERATES:
            extracted = str(first.filtered_resps[chosen or next(iter(first.filtered_resps))])
        tokens, cut = known.get(first.args[0], (None, None))
        found.append(GivenAnswer(text, score, None if extracted == text else extracted, tokens, cut))
    return found


def _known(lm: object) -> Mapping[str, tuple[int, bool]]:
    known: Mapping[str, tuple[int, bool]] = getattr(lm, "ends", {})
    return known
