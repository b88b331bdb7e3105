"""Tasks of MTEB as benchmarks: mteb evaluates the live encoder, and each example keeps its own score."""

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import datasets
import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from evohydra.checks import Count, checked
from evohydra.checks.libraries import optional
from evohydra.families import LiveModel
from evohydra.families.live_encoder import LiveEncoder
from evohydra.files import Plain
from evohydra.scoring.benchmarks import SPLITS, BenchmarkError, Split
from evohydra.scoring.benchmarks.contents import digest_of, versions_of
from evohydra.scoring.benchmarks.embeddings import PACKAGES, Embedder, Pooling, described
from evohydra.scoring.benchmarks.mteb_data import (
    IN_TREC,
    RANKED,
    MtebTask,
    Question,
    Task,
    hear_predictions,
    load,
    prompt_of,
)
from evohydra.scoring.benchmarks.splits import check_disjoint, slice_of

LIBRARIES = ("mteb", "scikit-learn", "scipy", "numpy", "pytrec_eval-terrier")
MainScore = Callable[[Task], float]
Ranks = Mapping[str, Mapping[str, float]]  # by query and document, or metric


@dataclass(frozen=True)
class MtebOptions:
    """Which task is asked, and how.

    task: mteb's name. data_dir: a copy of the repository of its data set, None: the hub or its cache. subset and split:
    of the data, where there are several. experiments: how often a classifier is fitted, None: as often as the task
    says. pooling and prompt as in `Embedder`; prompt None: the prompts in the model's files, chosen as mteb does.
    shuffle is the seed of the order in which splits are cut, limit the most examples of each split.
    """

    task: str | None = None
    data_dir: str | None = None
    subset: str | None = None
    split: str | None = None
    experiments: Count | None = None
    pooling: Pooling = "auto"
    prompt: str | None = None
    batch_size: Count = 32
    shuffle: int | None = None
    limit: Count | None = None


def mteb_task(name: str, *, splits: Mapping[str, Plain | None], **options: object) -> "dict[str, MtebBenchmark]":
    """The benchmark `name`, by its name; `splits` cut the examples of the task's data, options are `MtebOptions`.

    Raises BenchmarkError for tasks that mteb does not know, that no search can use, or whose data cannot be read;
    ValueError for unknown options and where mteb is not installed.
    """
    chosen = checked(f"benchmark.{name}", MtebOptions, options)
    if sorted(splits) != sorted(SPLITS):
        raise BenchmarkError(f"benchmark {name!r}: expected the splits {', '.join(SPLITS)}, got {sorted(splits)}")
    task = load(name, chosen.task, chosen.data_dir, chosen.subset, chosen.split)
    cut = {}
    for split, fields in splits.items():
        if fields is None:
            if split != "validation":
                raise BenchmarkError(f"benchmark {name!r}: only the validation split may be null")
            continue
        bounds = slice_of(f"benchmark.{name}.splits.{split}", fields)
        if bounds.task is not None or bounds.data_files is not None:
            raise BenchmarkError(f"benchmark.{name}.splits.{split}: expected start and stop, as all are of one task")
        total = len(task.questions)
        cut[split] = [task.questions[at] for at in bounds.indices(total, chosen.shuffle, chosen.limit)]
    return {name: MtebBenchmark(name, task, cut, chosen)}


class MtebBenchmark:
    """One task of mteb, whose main score is the mean over examples of what each of them scores."""

    families = ("encoder",)

    def __init__(
        self, name: str, task: MtebTask, questions: Mapping[str, Sequence[Question]], options: MtebOptions
    ) -> None:
        self.name = name
        self._task, self._questions, self._options = task, questions, options
        check_disjoint(name, {split: [each.text for each in chosen] for split, chosen in questions.items()})
        self._embedders: dict[str, Embedder] = {}

    def size(self, split: Split) -> int:
        """The number of texts that are classified, or of queries, in `split`."""
        return len(self._questions.get(split, ()))

    def identity(self) -> dict[str, object]:
        """What scores depend on: examples, what else is read of the data, and how mteb judges."""
        task, options = self._task, self._options
        return {
            "kind": "mteb",
            "task": task.loaded.metadata.name,
            "metric": task.metric,
            "judged_by": self._judge(),
            **described(options.pooling, options.prompt),
            "splits": {
                split: {"examples": len(chosen), "texts": digest_of([[each.text, each.judged_by] for each in chosen])}
                for split, chosen in self._questions.items()
            },
            "versions": versions_of((*PACKAGES, *LIBRARIES)),
        }

    def _judge(self) -> dict[str, object]:
        task, loaded = self._task, self._task.loaded
        if task.kind == "retrieval":
            return {"documents": digest_of(_rows(task.data[task.split]["corpus"]))}
        return {
            "classifier": _named(loaded),
            "samples_per_label": loaded.samples_per_label,
            "experiments": self._options.experiments or loaded.n_experiments,
            "seed": loaded.seed,
            "known_texts": digest_of(_rows(task.data[loaded.train_split])),
        }

    def describe(self, split: Split, index: int) -> tuple[str, str]:
        """Text `index` of `split`, and its label or the relevant documents."""
        question = self._questions[split][index]
        return question.text, question.right

    def __call__(self, live: LiveModel, split: Split, examples: Sequence[int] | None = None) -> NDArray[np.float64]:
        """The task's metric for each example of `split`, or of those at `examples` (n,).

        Of a classification it is the share of the experiments in which the label is found.
        """
        places = range(self.size(split)) if examples is None else examples
        return self._judged(live, [self._questions[split][at] for at in places])[0]

    def answers(self, live: LiveModel, split: Split, examples: Sequence[int]) -> list[str]:
        """The label that is found most often, or the first document, for the examples of `split` at `examples`."""
        return self._judged(live, [self._questions[split][at] for at in examples])[1]

    def _judged(self, live: LiveModel, questions: Sequence[Question]) -> tuple[NDArray[np.float64], list[str]]:
        """Scores (n,) and answers; BenchmarkError where their mean is not what mteb reports."""
        if not questions:
            return np.zeros(0), []
        if not isinstance(live, LiveEncoder):
            raise BenchmarkError(f"benchmark {self.name!r}: expected an encoder, got {type(live).__name__}")
        task = copy.copy(self._task.loaded)
        asked = AsMteb(self.name, live, partial(self._vectors, live))
        judge = _classified if self._task.kind == "classification" else _ranked
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classifiers that have not converged, which mteb accepts
            scores, answers, reported = judge(self._task, task, questions, partial(self._main_score, live=asked))
        if not np.isclose(scores.mean(), reported, atol=1.1e-5, rtol=0):  # mteb rounds to 5 digits
            raise BenchmarkError(
                f"benchmark {self.name!r}: the mean over examples is {scores.mean():.6f}, but mteb reports "
                f"{self._task.metric} {reported:.6f} for {self._task.loaded.metadata.name}: such a task cannot be used"
            )
        return scores, answers

    def _main_score(self, task: Task, live: "AsMteb") -> float:
        """What mteb reports for the live encoder on the data of `task`."""
        options, subset = self._options, self._task.subset
        if options.experiments is not None:
            task.n_experiments = options.experiments
        encode = {"batch_size": options.batch_size, "show_progress_bar": False}
        hidden = datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        try:
            found = task.evaluate(live, split=self._task.split, subsets_to_run=[subset], encode_kwargs=encode)
        finally:
            if not hidden:
                datasets.enable_progress_bars()
        return float(found[subset]["main_score"])

    def _vectors(self, live: LiveEncoder, texts: Sequence[str], asked_for: object) -> NDArray[np.float32]:
        """Vectors (texts, width) of what mteb asks for as queries, documents, or neither (None)."""
        options = self._options
        before = options.prompt
        if before is None:
            before = prompt_of(self._task.loaded, dict(live.sentence.prompts), live.sentence.prompt, asked_for)
        if before not in self._embedders:
            self._embedders[before] = Embedder(self.name, options.batch_size, options.pooling, before)
        return np.asarray(self._embedders[before].encoded(live, texts))


class AsMteb:
    """A live encoder as mteb asks it (its EncoderProtocol); `vectors` makes those of texts, of a kind of asking.

    Raises BenchmarkError where the model's files say that vectors are compared in another way than mteb's two.
    """

    def __init__(self, name: str, live: LiveEncoder, vectors: Callable[..., NDArray[np.float32]]) -> None:
        self._vectors = vectors
        functions = optional("mteb.similarity_functions", f"benchmark={name}", "evohydra[mteb]")
        known = {
            "cosine": (functions.cos_sim, functions.pairwise_cos_sim),
            "dot": (functions.dot_score, functions.pairwise_dot_score),
        }
        if live.sentence.similarity not in known:
            raise BenchmarkError(
                f"benchmark {name!r}: expected vectors that are compared by {' or '.join(known)}, but the files of the "
                f"model say similarity_fn_name={live.sentence.similarity!r}"
            )
        self.similarity, self.similarity_pairwise = known[live.sentence.similarity]
        self.mteb_model_meta = optional("mteb.models", f"benchmark={name}", "evohydra[mteb]").ModelMeta.create_empty()

    def encode(
        self, inputs: Iterable[Mapping[str, Sequence[str]]], *, prompt_type: object = None, **_: object
    ) -> NDArray[np.float32]:
        """Vectors (texts, width) of the texts in the batches `inputs`."""
        return self._vectors([text for batch in inputs for text in batch["text"]], prompt_type)


def _classified(
    part: MtebTask, task: Task, questions: Sequence[Question], main_score: MainScore
) -> tuple[NDArray[np.float64], list[str], float]:
    """Scores (n,), answers, and what mteb reports; labels are found in each of the task's experiments."""
    data = {
        task.train_split: part.data[task.train_split],
        part.split: part.data[part.split].select([each.row for each in questions]),
    }
    task.dataset = {part.subset: datasets.DatasetDict(data)}
    found: list[tuple[Sequence[object], Sequence[object]]] = []

    def note(truth: Sequence[object], predicted: Sequence[object]) -> dict[str, float]:
        found.append((truth, predicted))
        return {"accuracy": float(np.mean([one == other for one, other in zip(*found[-1], strict=True)]))}

    hear_predictions(task, note)
    reported = main_score(task)
    right = np.array([[one == other for one, other in zip(*each, strict=True)] for each in found], dtype=np.float64)
    votes = zip(*(predicted for _, predicted in found), strict=True)
    return right.mean(axis=0), [str(max(each, key=each.count)) for each in votes], reported


def _ranked(
    part: MtebTask, task: Task, questions: Sequence[Question], main_score: MainScore
) -> tuple[NDArray[np.float64], list[str], float]:
    """Scores (n,), the first documents, and what mteb reports; all documents are ranked for each query."""
    whole = part.data[part.split]
    queries = whole["queries"].select([each.row for each in questions])
    keys = list(queries["id"])
    data = {**whole, "queries": queries, "relevant_docs": {key: whole["relevant_docs"][key] for key in keys}}
    if whole.get("top_ranked"):
        data["top_ranked"] = {key: whole["top_ranked"][key] for key in keys}
    task.dataset = {part.subset: {part.split: data}}
    noted: dict[str, Ranks] = {}

    def note(scores: Ranks, qrels: object, results: Ranks, **_: object) -> dict[str, float]:
        noted.update(scores=scores, results=results)
        return {}

    task.task_specific_scores = note
    reported = main_score(task)
    kind, k = RANKED.fullmatch(part.metric).groups()  # type: ignore[union-attr]
    scores = np.array([noted["scores"][key][f"{IN_TREC[kind]}_{k}"] for key in keys], dtype=np.float64)
    first = [max(ranked, key=ranked.__getitem__, default="") for ranked in (noted["results"][key] for key in keys)]
    documents = dict(zip(whole["corpus"]["id"], whole["corpus"]["text"], strict=True))
    return scores, [str(documents.get(key, key)) for key in first], reported


def _named(task: Task) -> str:
    """The classifier and its settings, whether mteb has given it the task's seed yet or not."""
    classifier = clone(task.evaluator_model)
    seeded = "random_state" in classifier.get_params()
    return repr(classifier.set_params(random_state=task.seed) if seeded else classifier)


def _rows(table: datasets.Dataset) -> list[dict[str, object]]:
    return [dict(row) for row in table]
