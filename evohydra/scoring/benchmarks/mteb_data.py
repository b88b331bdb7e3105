"""Tasks of the package mteb (Muennighoff et al., arXiv 2210.07316): which can be searched with, and their data."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, Protocol

from datasets import Dataset
from sklearn.base import BaseEstimator

from evohydra.checks.libraries import PrivateParts, optional
from evohydra.files import Plain
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.hub_data import as_they_are_now, check_commit, why_unread

PARTS = (
    PrivateParts("mteb", "2.26.24", "mteb.abstasks.abstask:AbsTask", ("evaluate", "load_data")),
    PrivateParts(
        "mteb",
        "2.26.24",
        "mteb.abstasks.classification:AbsTaskClassification",
        ("_evaluate_subset", "_calculate_scores"),
    ),
    PrivateParts(
        "mteb",
        "2.26.24",
        "mteb.abstasks.retrieval:AbsTaskRetrieval",
        ("_evaluate_subset", "task_specific_scores", "convert_v1_dataset_format_to_v2"),
    ),
    PrivateParts("mteb", "2.26.24", "mteb.models.abs_encoder", ("get_prompt_name",)),
)
logger = logging.getLogger(__name__)
RANKED = re.compile(r"(ndcg|map|recall|precision|hit_rate)_at_(\d+)")
IN_TREC = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}
Kind = Literal["classification", "retrieval"]


class Metadata(Protocol):
    """What is used of mteb's TaskMetadata."""

    name: str
    type: str
    main_score: str
    modalities: Sequence[str]
    hf_subsets: Sequence[str]
    eval_splits: Sequence[str]
    dataset: Mapping[str, str]
    prompt: object

    def model_copy(self, *, update: Mapping[str, object]) -> "Metadata":
        """One with other values."""
        ...


class Task(Protocol):
    """What is used of mteb's AbsTask, and of its kinds that classify or rank."""

    metadata: Metadata
    dataset: Plain
    seed: int
    train_split: str
    input_column_name: str
    label_column_name: str
    evaluator_model: BaseEstimator
    samples_per_label: int
    n_experiments: int
    is_cross_validation: bool
    task_specific_scores: Callable[..., dict[str, float]]
    _calculate_scores: Callable[..., dict[str, float]]

    def load_data(self) -> None:
        """Fill `dataset`."""
        ...

    def evaluate(self, model: object, **settings: object) -> Mapping[str, Mapping[str, float]]:
        """By subset the scores of `model`."""
        ...


@dataclass(frozen=True)
class Question:
    """What one example asks, what is right in words, where it stands in the data, and all that it is judged by."""

    text: str
    right: str
    row: int
    judged_by: object


@dataclass(frozen=True)
class MtebTask:
    """A task with its data; `loaded` is mteb's own object.

    metric: the task's main score, a mean over examples: "accuracy", or of rankings ndcg_at_10 and kin.
    """

    loaded: Task
    kind: Kind
    subset: str
    split: str
    metric: str
    questions: Sequence[Question]

    @property
    def data(self) -> Plain:
        """The subset's data: by split a table, or queries, corpus and relevant documents."""
        dataset = self.loaded.dataset
        return dataset if self.subset not in dataset and self.subset == "default" else dataset[self.subset]


def load(name: str, task: str | None, data_dir: str | None, subset: str | None, split: str | None) -> MtebTask:
    """The task of mteb called `task` for the benchmark `name`.

    data_dir: a copy of its data set's repository, None: from the hub or its cache. Raises BenchmarkError for names that
    mteb does not know, tasks whose main score is no mean over examples, and data that cannot be read; ValueError where
    mteb is not installed.
    """
    mteb = optional("mteb", f"benchmark={name}", "evohydra[mteb]")
    logging.getLogger("mteb").setLevel(logging.WARNING)
    if task is None:
        raise BenchmarkError(f"benchmark.{name}.task: expected the name of a task of mteb, as Banking77Classification")
    try:
        known = mteb.get_task(task)
    except KeyError as error:
        raise BenchmarkError(f"benchmark.{name}.task: mteb {mteb.__version__} has no task {task!r}: {error}") from error
    kind = _kind(name, known, mteb.abstasks)
    chosen = _one(f"benchmark.{name}.subset", task, "subset", known.metadata.hf_subsets, subset)
    part = _one(f"benchmark.{name}.split", task, "split", known.metadata.eval_splits, split)
    loaded = mteb.get_task(task, hf_subsets=[chosen], eval_splits=[part])
    _read(name, loaded, data_dir)
    found = MtebTask(loaded, kind, chosen, part, known.metadata.main_score, ())
    wanted = [part, loaded.train_split] if kind == "classification" else [part]
    if lacking := [each for each in wanted if each not in found.data]:
        raise BenchmarkError(
            f"benchmark {name!r}: expected the splits {', '.join(wanted)} in the data of {task}, got "
            f"{', '.join(found.data) or 'none'} (no {lacking[0]})"
        )
    questions = _labelled(found) if kind == "classification" else _queries(found)
    return MtebTask(loaded, kind, chosen, part, found.metric, questions)


def _kind(name: str, task: Task, base: ModuleType) -> Kind:
    """What the task is; BenchmarkError for tasks that a search cannot compare models by, example by example."""
    metadata = task.metadata
    if list(metadata.modalities) != ["text"]:
        raise BenchmarkError(f"benchmark.{name}: {metadata.name} is about {', '.join(metadata.modalities)}, not texts")
    single, ranking = base.AbsTaskClassification, base.AbsTaskRetrieval
    if isinstance(task, single) and metadata.main_score == "accuracy" and _as_in(task, single, "_calculate_scores"):
        of_train = task.train_split in metadata.eval_splits
        if not (of_train or task.is_cross_validation) and isinstance(task.input_column_name, str):
            return "classification"
    elif isinstance(task, ranking) and RANKED.fullmatch(metadata.main_score) and _as_in(task, ranking):
        return "retrieval"
    instead = "; benchmark=embedding_similarity compares pairs one by one" if metadata.type == "STS" else ""
    raise BenchmarkError(
        f"benchmark.{name}: a search compares models example by example. That can be done with tasks of mteb that "
        "classify (main score accuracy) or rank documents (ndcg, map, recall, precision or hit rate at k), not with "
        f"{metadata.name}: {metadata.type}, main score {metadata.main_score}{instead}"
    )


def _as_in(task: object, base: type, *names: str) -> bool:
    """Whether the task is evaluated as its base class does it."""
    return all(getattr(type(task), each) is getattr(base, each) for each in ("evaluate", "_evaluate_subset", *names))


def _one(key: str, task: str, what: str, known: Sequence[str], chosen: str | None) -> str:
    if chosen is None and len(known) > 1:
        raise BenchmarkError(f"{key}: {task} has several: expected one {what} of {', '.join(known)}")
    if chosen is not None and chosen not in known:
        raise BenchmarkError(f"{key}: expected a {what} of {task} ({', '.join(known)}), got {chosen!r}")
    return chosen or known[0]


def _read(name: str, task: Task, data_dir: str | None) -> None:
    # Code that comes with data sets never runs, though some tasks ask for it.
    source = {key: value for key, value in task.metadata.dataset.items() if key != "trust_remote_code"}
    hub, revision = source["path"], source.get("revision")
    if data_dir is not None:
        source["path"] = data_dir
    task.metadata = task.metadata.model_copy(update={"dataset": source})
    try:
        with as_they_are_now(data_dir):
            task.load_data()
        getattr(task, "convert_v1_dataset_format_to_v2", lambda *, num_proc: None)(num_proc=None)
    except Exception as error:
        raise BenchmarkError(
            f"benchmark {name!r}: {why_unread(source['path'], error, f'benchmark.{name}.data_dir=/data/NAME')}"
        ) from error
    if data_dir is None:
        check_commit(f"benchmark {name!r}", hub, revision, _tables(task.dataset))


def _tables(dataset: object) -> list[Dataset]:
    """All tables in nested mappings."""
    if isinstance(dataset, Mapping):
        return [table for each in dataset.values() for table in _tables(each)]
    return [dataset] if isinstance(dataset, Dataset) else []


def _labelled(task: MtebTask) -> list[Question]:
    table = task.data[task.split]
    texts, labels = table[task.loaded.input_column_name], table[task.loaded.label_column_name]
    return _once(
        Question(text, str(label), row, label) for row, (text, label) in enumerate(zip(texts, labels, strict=True))
    )


def _queries(task: MtebTask) -> list[Question]:
    data = task.data[task.split]
    relevant, queries, ranked = data["relevant_docs"], data["queries"], data.get("top_ranked") or {}
    if ranked and (without := [key for key in queries["id"] if relevant.get(key) and key not in ranked]):
        logger.warning("%d queries have no documents to be ranked (%s, ...): left out", len(without), without[0])
    titles = dict(zip(data["corpus"]["id"], data["corpus"]["text"], strict=True))
    asked = zip(queries["id"], queries["text"], strict=True)
    return _once(
        Question(
            text,
            "; ".join(str(titles.get(document, document)) for document in relevant[key]),
            row,
            [dict(relevant[key]), ranked.get(key)],
        )
        for row, (key, text) in enumerate(asked)
        if relevant.get(key) and (not ranked or key in ranked)
    )


def _once(questions: Iterable[Question]) -> list[Question]:
    """Of questions with the same text the first: splits must not share any."""
    found: dict[str, Question] = {}
    asked = list(questions)
    if strange := [each for each in asked if not isinstance(each.text, str)]:
        raise BenchmarkError(f"row {strange[0].row}: expected a text, got {strange[0].text!r}")
    for question in asked:
        found.setdefault(question.text, question)
    if len(found) < len(asked):
        logger.warning(
            "%d of %d texts are there twice or more; each is asked once", len(asked) - len(found), len(asked)
        )
    return list(found.values())


def prompt_of(task: Task, prompts: Mapping[str, str], default: str, asked_for: object) -> str:
    """What mteb puts before texts of `task`: the first of the model's `prompts` whose name fits, else `default`.

    `asked_for` is mteb's kind of prompt, query or document, or None. As in sentence-transformers these two are nothing
    where the model's files do not say so, and then `default` does not count.
    """
    known = {"query": "", "document": "", **prompts}
    names = optional("mteb.models.abs_encoder", "benchmark=mteb", "evohydra[mteb]")
    name: str | None = names.get_prompt_name(known, task.metadata, asked_for)
    return default if name is None else known[name]


def hear_predictions(task: Task, hear: Callable[[Sequence[object], Sequence[object]], dict[str, float]]) -> None:
    """Let `hear` judge true and predicted labels of each experiment in place of mteb, which then takes its scores."""
    task._calculate_scores = lambda truth, predicted: hear(list(truth), predicted.tolist())
