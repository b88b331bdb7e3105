"""The options of a benchmark of lm-eval, and their types."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import StringConstraints

from evohydra.checks import Count, Natural, Words, check_settings
from evohydra.files import Plain
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.prompt_formats import check_format

Auto = Annotated[str, StringConstraints(pattern=r"^auto(:\d+)?$"), Words("auto")]
BatchSize = Count | Auto


@dataclass(frozen=True)
class TaskOptions:
    """How tasks are asked and scored. None leaves the task's own setting.

    metric and filter choose what counts, generation_kwargs are merged over the task's, data_files replaces its data set
    by local JSON or parquet files ({split: path} or one path), data_dir by a local copy of the hub's repository,
    include_path is a directory with task yamls of one's own, shuffle is the seed of the order in which splits are cut
    (None: as the examples come), limit caps each split. prompt_format is a text with {question}, in whose place each
    prompt of the task stands, with its shots. sampling_seed: where answers are sampled, their random numbers follow
    from it, the example and the repeat. prefix_cache: whether what the prompts of a batch begin with is read once,
    where the model allows it. complete_references: whether references are all that a model should write,
    or (false) only the end of it, as the number after a chain of calculation; None: not known. second_prompt: how the
    audit of a winner asks another time, a text with names of the document's fields in braces.
    """

    metric: str | None = None
    filter: str | None = None
    num_fewshot: Natural | None = None
    limit: Count | None = None
    shuffle: int | None = None
    generation_kwargs: Mapping[str, object] | None = None
    chat_template: bool | str = False
    prompt_format: str | None = None
    system_prompt: str | None = None
    fewshot_as_multiturn: bool = False
    data_files: str | Mapping[str, str] | None = None
    data_dir: str | None = None
    include_path: str | None = None
    batch_size: BatchSize = 64
    prefix_cache: Literal["auto"] | bool = "auto"
    sampling_seed: int = 0
    complete_references: bool | None = None
    second_prompt: str | None = None


def task_options(name: str, options: Plain) -> TaskOptions:
    """The options of the benchmark `name`; BenchmarkError for one that does not exist, ValueError for a wrong type."""
    unknown = sorted(set(options) - set(TaskOptions.__dataclass_fields__))
    if unknown:
        raise BenchmarkError(
            f"benchmark {name!r}: unknown options {unknown}; known are {sorted(TaskOptions.__dataclass_fields__)}"
        )
    check_settings(f"benchmark.{name}", TaskOptions, options)
    check_format(f"benchmark.{name}.prompt_format", options.get("prompt_format"))
    if options.get("prompt_format") and options.get("chat_template"):
        raise BenchmarkError(f"benchmark {name!r}: expected prompt_format or chat_template, got both")
    if options.get("fewshot_as_multiturn") and not options.get("chat_template"):
        raise BenchmarkError(
            f"benchmark {name!r}: fewshot_as_multiturn=true makes few-shot examples messages of a chat, got "
            "chat_template=false; give chat_template=true too"
        )
    return TaskOptions(**options)
