"""Metrics of lm-eval: a number for each example that grows with quality, or an error before anything is scored."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import lm_eval.api.metrics
import numpy as np
import pytest
import torch
from lm_eval.api.registry import (
    AGGREGATION_REGISTRY,
    HIGHER_IS_BETTER_REGISTRY,
    METRIC_AGGREGATION_REGISTRY,
    METRIC_REGISTRY,
)
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.lm_eval import lm_eval_benchmarks
from evohydra.scoring.benchmarks.lm_eval_metrics import LOG_LIKELIHOOD, PERPLEXITIES, refusal
from tests.tiny_models import save_trio

SPLITS = {"search": {"start": 0, "stop": 8}, "validation": None, "test": {"start": 8, "stop": 16}}
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: rows.jsonl}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: {metric}
    aggregation: {aggregation}
    higher_is_better: {better}
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveCausalLM:
    _, one, _ = save_trio(tmp_path_factory.mktemp("models"))
    return CausalLM().live_model(one, torch.device("cpu"), torch.float32)


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., None]:
    rows = "".join(f'{{"question": "{i}+1=", "answer": "{i + 1}"}}\n' for i in range(16))
    (tmp_path / "rows.jsonl").write_text(rows)

    def write(name: str, kind: str, metric: str, aggregation: str, better: bool) -> None:
        text = TASK.format(name=name, kind=kind, metric=metric, aggregation=aggregation, better=str(better).lower())
        if kind == "multiple_choice":
            text = text.replace("{{answer}}", "{{answer|int % 4}}") + 'doc_to_choice: ["0", "1", "2", "12"]\n'
        if kind == "generate_until":
            text += "generation_kwargs: {until: [x], max_gen_toks: 4}\n"
        (tmp_path / f"{name}.yaml").write_text(text)

    return write


def made(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    return lm_eval_benchmarks(name, task=name, include_path=str(tmp_path), splits=SPLITS)[name]


def expected_of(kind: str, metric: str, aggregation: str) -> str:
    """What has to become of a metric as lm-eval has it: used as it is, negated, as a log-likelihood, or refused.

    Written by hand, from lm-eval's own text; what is not here is new, and has to be looked at.
    """
    return {
        ("acc", "mean"): "used", ("acc_norm", "mean"): "used", ("acc_bytes", "mean"): "used",
        ("acc_mutual_info", "mean"): "used", ("exact_match", "mean"): "used",
        ("perplexity", "perplexity"): LOG_LIKELIHOOD, ("word_perplexity", "weighted_perplexity"): LOG_LIKELIHOOD,
        ("byte_perplexity", "weighted_perplexity"): LOG_LIKELIHOOD, ("bits_per_byte", "bits_per_byte"): LOG_LIKELIHOOD,
        ("brier_score", "brier_score"): "negated",
        # no number for an example, or none that a mean is taken of
        ("acc_all", "mean"): "refused", ("likelihood", "mean"): "refused", ("bypass", "bypass"): "refused",
        ("f1", "f1"): "refused", ("mcc", "matthews_corrcoef"): "refused", ("bleu", "bleu"): "refused",
        ("chrf", "chrf"): "refused", ("chrf++", "chrf++"): "refused", ("ter", "ter"): "refused",
    }[metric, aggregation]  # fmt: skip


KIND_OF = {"exact_match": "generate_until", "bleu": "generate_until", "chrf": "generate_until", "chrf++":
           "generate_until", "ter": "generate_until", "bypass": "generate_until", "perplexity": "loglikelihood",
           "acc_all": "loglikelihood", "word_perplexity": "loglikelihood_rolling", "byte_perplexity":
           "loglikelihood_rolling", "bits_per_byte": "loglikelihood_rolling"}  # fmt: skip
SHIPPED = [name for name in METRIC_REGISTRY if METRIC_REGISTRY[name].__module__ == lm_eval.api.metrics.__name__]


@pytest.mark.parametrize("metric", sorted(SHIPPED))
def test_every_metric_of_lm_eval_is_used_rightly_or_refused(
    metric: str, task: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: LiveCausalLM
):
    """With the aggregation and direction that lm-eval registers for it, on models whose answers can be told apart."""
    kind = KIND_OF.get(metric, "multiple_choice")
    (aggregation,) = (n for n, f in AGGREGATION_REGISTRY.items() if f is METRIC_AGGREGATION_REGISTRY[metric])
    better = HIGHER_IS_BETTER_REGISTRY[metric]
    task("some", kind, metric, aggregation, better)
    expected = expected_of(kind, metric, aggregation)
    if expected == "refused":
        with pytest.raises(BenchmarkError, match=rf"metric '{re.escape(metric)}', with the aggregation .*: \[\]"):
            made("some", tmp_path, monkeypatch)
        return
    built = made("some", tmp_path, monkeypatch)
    scores = built(live, "search")
    assert built.title == (f"some ({LOG_LIKELIHOOD} instead of {metric})" if expected == LOG_LIKELIHOOD else "some")
    whole = by_lm_eval("some", tmp_path, live, metric)
    if expected == LOG_LIKELIHOOD:
        totals = {"word_perplexity": words, "byte_perplexity": len, "bits_per_byte": len}
        lengths = [totals.get(metric, lambda _: 1)(answer) for answer in map(str, range(1, 9))]
        rate = -sum(scores) / sum(lengths)
        assert whole == pytest.approx(rate / math.log(2) if metric == "bits_per_byte" else math.exp(rate))
    else:
        assert whole == pytest.approx((-1.0 if expected == "negated" else 1.0) * float(np.mean(scores)))
    assert not better or expected == "used"


def words(text: str) -> int:
    return len(text.split())


def by_lm_eval(name: str, tasks: Path, live: LiveCausalLM, metric: str) -> float:
    """The metric of the search split by lm-eval's own loop and model."""
    loaded = TaskManager(include_path=tasks, include_defaults=False).load([name])["tasks"]
    lm = HFLM(pretrained=live.module, tokenizer=live.tokenizer, batch_size=3)
    results = evaluate(lm=lm, task_dict=loaded, samples={name: list(range(8))}, bootstrap_iters=0)["results"][name]
    return float(results[f"{metric},none"])


@pytest.mark.parametrize("aggregation", sorted(AGGREGATION_REGISTRY))
def test_every_aggregation_is_used_rightly_or_refused(
    aggregation: str, task: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of a number for each example."""
    lower = aggregation in PERPLEXITIES
    task("some", "loglikelihood", "acc", aggregation, not lower)
    if aggregation in {"mean", "nanmean", *PERPLEXITIES}:
        assert made("some", tmp_path, monkeypatch).size("search") == 8
    else:
        with pytest.raises(BenchmarkError, match=r"metric 'acc', with the aggregation '.*', is not the mean"):
            made("some", tmp_path, monkeypatch)


def test_a_perplexity_of_which_more_is_better_is_refused(
    task: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    task("some", "loglikelihood", "perplexity", "perplexity", True)
    with pytest.raises(BenchmarkError, match="the better the lower it is, and the task says that higher is better"):
        made("some", tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return sum(sorted(items)[len(items) // 20 : len(items) - len(items) // 20]) / max(1, len(items) - "
         "2 * (len(items) // 20))", "is not the mean"),
        ("return max(items)", "is not the mean"),
        ("return sum(items) / len(items)", None),
        ("return sum(i for i in items if i == i) / len([i for i in items if i == i])", None),
    ],
)  # fmt: skip
def test_a_function_of_ones_own_is_used_where_it_is_a_mean(
    body: str, reason: str | None, task: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    live: LiveCausalLM,
):  # fmt: skip
    """A mean without the largest and smallest looks like one where there are few; one without NaN is found out."""
    (tmp_path / "own.py").write_text(
        f"def aggregate(items):\n    {body}\n\n\n"
        "def values(doc, results):\n    return {'some': float('nan') if doc['answer'] == '3' else 1.0}\n"
    )
    task("own", "loglikelihood", "some", "!function own.aggregate", True)
    file = tmp_path / "own.yaml"
    file.write_text(file.read_text() + "process_results: !function own.values\n")
    if reason is not None:
        with pytest.raises(BenchmarkError, match=reason):
            made("own", tmp_path, monkeypatch)
    elif "i == i" in body:
        with pytest.raises(BenchmarkError, match="has no number for an example"):
            made("own", tmp_path, monkeypatch)(live, "search")
    else:
        assert np.isnan(made("own", tmp_path, monkeypatch)(live, "search")).sum() == 1  # the model is said to fail


def test_perplexity_is_searched_downwards(
    task: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: LiveCausalLM
):
    """Scores are log-likelihoods, of which a larger one is a smaller perplexity."""
    task("lambada_like", "loglikelihood", "perplexity", "perplexity", False)
    benchmark = made("lambada_like", tmp_path, monkeypatch)
    scores = benchmark(live, "search")
    assert (scores < 0).all()
    perplexity = AGGREGATION_REGISTRY["perplexity"](list(scores))
    assert perplexity == pytest.approx(math.exp(-np.mean(scores)))
    better = scores + 1
    assert AGGREGATION_REGISTRY["perplexity"](list(better)) < perplexity
    assert refusal(benchmark._tasks["search"], "perplexity") is None
