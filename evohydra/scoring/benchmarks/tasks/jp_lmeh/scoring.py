"""Scores of the nine JP-LMEH tasks: each gives a number `score` for a document, whose means the group averages."""

import importlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from statistics import fmean
from typing import Any

LIBRARIES = ("rouge-score", "fugashi", "unidic-lite", "emoji", "neologdn")  # that scores of xlsum depend on

JNLI_LABELS = ("entailment", "contradiction", "neutral")
MARC_JA_LABELS = ("positive", "negative")
JCOLA_LABELS = ("unacceptable", "acceptable")

Likelihoods = Sequence[tuple[float, bool]]  # one (log-likelihood, is greedy) for each choice
GoldAndAnswer = tuple[int, int]


def accuracy(doc: Mapping[str, Any], results: Likelihoods) -> dict[str, float]:
    """Return acc and score: 1 where the likeliest choice is the one that `label` counts from 0."""
    right = float(_likeliest(results) == doc["label"])
    return {"acc": right, "score": right}


def balanced_accuracy(doc: Mapping[str, Any], results: Likelihoods) -> dict[str, float | GoldAndAnswer]:
    """Return acc, balanced_acc as (right class, likeliest class) for `mean_recall` to aggregate, and score.

    score is acc times the document's `weight`, so it may pass 1, and its mean over the split is the balanced accuracy.
    """
    pair = (int(doc["label"]), _likeliest(results))
    right = float(pair[0] == pair[1])
    return {"acc": right, "balanced_acc": pair, "score": right * doc["weight"]}


def mean_recall(pairs: Sequence[GoldAndAnswer]) -> float:
    """Return the balanced accuracy of (right class, answered class) pairs: the mean over classes of their recall."""
    hits: dict[int, list[bool]] = defaultdict(list)
    for gold, answer in pairs:
        hits[gold].append(gold == answer)
    return fmean(fmean(recall) for recall in hits.values())


def exact_match(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return exact_match and score: 1 where the answer, outer white space removed, is one of the right ones."""
    right = float(results[0].strip() in {text.strip() for text in doc["answers"]["text"]})
    return {"exact_match": right, "score": right}


def mgsm(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return acc and score by the extraction of lm-eval's own task: the last number, which must be an integer."""
    right = float(_shipped("ja_leaderboard_mgsm").process_results(doc, results)["acc"])
    return {"acc": right, "score": right}


def rouge2(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return rouge2 and score: the F measure over MeCab words of the summary, white space at its ends removed."""
    value = float(_rouge2_scorer().score(doc["summary"], results[0].strip())["rouge2"].fmeasure)
    return {"rouge2": value, "score": value}


def jnli_docs(dataset: Any) -> Any:
    """Return the JNLI split with its labels as numbers from 0, and the weight of each document."""
    return _with_weights(dataset, JNLI_LABELS)


def marc_ja_docs(dataset: Any) -> Any:
    """Return the MARC-ja split with its labels as numbers from 0, and the weight of each document."""
    return _with_weights(dataset, MARC_JA_LABELS)


def jcola_docs(dataset: Any) -> Any:
    """Return the JCoLA split with its labels as numbers from 0, and the weight of each document."""
    return _with_weights(dataset, JCOLA_LABELS)


def _likeliest(results: Likelihoods) -> int:
    """Return the index of the greatest log-likelihood, the first of equals."""
    return max(range(len(results)), key=lambda choice: results[choice][0])


def _with_weights(dataset: Any, names: Sequence[str]) -> Any:
    """Number a split's labels by their places in `names`, and add the column weight: N / (classes * N of the class)."""
    labels = list(dataset["label"])
    if not all(isinstance(label, int) for label in labels):
        unknown = sorted({str(label) for label in labels if label not in names})
        if unknown:
            raise ValueError(f"label: expected one of {', '.join(names)} (or its number), got {', '.join(unknown)}")
        labels = [names.index(label) for label in labels]
    sizes = Counter(labels)
    weights = [len(labels) / (len(sizes) * sizes[label]) for label in labels]
    return dataset.remove_columns("label").add_column("label", labels).add_column("weight", weights)


def _shipped(name: str) -> Any:
    """Import one of lm-eval's own modules of Japanese scoring."""
    return importlib.import_module(f"lm_eval.tasks.japanese_leaderboard.{name}")


@cache
def _rouge2_scorer() -> Any:
    """Build the ROUGE-2 scorer over MeCab words once: its dictionary takes a second to load."""
    tokenizer = _shipped("ja_leaderboard_xlsum").MecabTokenizer()
    return importlib.import_module("rouge_score.rouge_scorer").RougeScorer(["rouge2"], tokenizer=tokenizer)
