"""What the scores on a split of an lm-eval task depend on, in digests and plain settings."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from lm_eval.api.task import ConfigurableTask, Task

from evohydra.scoring.benchmarks.contents import code_of, digest_of, libraries_of
from evohydra.scoring.benchmarks.images import text_of
from evohydra.scoring.benchmarks.lm_eval_shots import shots_of
from evohydra.scoring.benchmarks.sampling import may_sample

PACKAGES = ("lm-eval", "transformers", "tokenizers", "torch", "jinja2")
# Where the data and the task's file are, which are digested themselves, and what is of no consequence.
LEFT_OUT = {
    "task",
    "task_alias",
    "tag",
    "dataset_path",
    "dataset_name",
    "dataset_kwargs",
    "training_split",
    "validation_split",
    "test_split",
    "fewshot_split",
    "metadata",
    "should_decontaminate",
    "doc_to_decontamination_query",
}
RENDERED = 8  # examples whose whole prompt is rendered; rendering all would take longer than to read the data


def samples(task: Task) -> bool:
    """Whether the task's answers may be sampled; of a task that is a class of its own nothing is known but that."""
    if not isinstance(task, ConfigurableTask):
        return True
    return task.OUTPUT_TYPE == "generate_until" and may_sample(task.config.generation_kwargs or {})


def of_split(
    task: Task, indices: Sequence[int], seed: int, system_prompt: str | None
) -> tuple[dict[str, object], set[str]]:
    """JSON data about the examples at `indices`, in their order, and the packages that the task's functions name.

    Prompts follow from documents, settings (with the templates), few-shot documents and code, all of which are there.
    A few are rendered besides, for what may come from elsewhere. `seed` is that of the few-shot examples.
    """
    config = task.config.to_dict(keep_callable=True) if isinstance(task, ConfigurableTask) else {}
    functions: list[Callable[..., object]] = [*_functions(config)]
    if type(task) is not ConfigurableTask:
        functions.append(type(task))
    found = {
        "examples": len(indices),
        "documents": digest_of([text_of(task.eval_docs[index]) for index in indices]),
        "prompts": digest_of(_rendered(task, indices, seed, system_prompt)),
        "settings": {key: _named(value) for key, value in sorted(config.items()) if key not in LEFT_OUT},
        "code": code_of(functions, of_tasks=True),
    }
    if config.get("num_fewshot"):
        found["fewshot"] = {"seed": seed, "documents": digest_of([text_of(doc) for doc in shots_of(task)])}
    evaluated = any(each.get("hf_evaluate") for each in config.get("metric_list") or ())
    return found, libraries_of(functions) | ({"evaluate"} if evaluated else set())


def _rendered(task: Task, indices: Sequence[int], seed: int, system_prompt: str | None) -> list[str]:
    """The prompts, without a chat template, and targets of some examples."""
    if not isinstance(task, ConfigurableTask):
        return []
    texts = []
    try:
        for index in indices[:: max(1, len(indices) // RENDERED)][:RENDERED]:
            doc = task.eval_docs[index]
            prompt = task.fewshot_context(doc, task.config.num_fewshot or 0, system_instruction=system_prompt)
            texts.append(text_of([prompt, task.doc_to_target(doc)]))
    finally:
        task.set_fewshot_seed(seed=seed)  # as if no few-shot example had been drawn
    return texts


def _functions(value: object) -> Iterator[Callable[..., object]]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _functions(each)
    elif callable(value):
        yield value


def _named(value: object) -> object:
    """JSON data; of a function its name, as its source is in the code."""
    if isinstance(value, Mapping):
        return {str(key): _named(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_named(each) for each in value]
    if callable(value):
        return f"function {getattr(value, '__name__', type(value).__name__)}"
    return value if value is None or isinstance(value, str | int | float | bool) else repr(value)
