"""Metrics of lm-eval: a number for each example that grows with quality, or an error before anything is scored."""

import math
from collections.abc import Callable
from pathlib import Path

import lm_eval.api.metrics  # noqa: F401  (registers them)
import numpy as np
import pytest
import torch
from lm_eval.api.registry import AGGREGATION_REGISTRY

from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.live_lm import LiveLM
from evohydra.scoring.benchmarks.lm_eval import lm_eval_benchmarks
from evohydra.scoring.benchmarks.lm_eval_metrics import refusal
from tests.tiny_models import save_trio

SPLITS = {"search": {"start": 0, "stop": 8}, "validation": None, "test": {"start": 8, "stop": 16}}
USED = {"mean", "nanmean", "perplexity"}
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: rows.jsonl}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - {{metric: {metric}, aggregation: {aggregation}, higher_is_better: {better}}}
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
        (tmp_path / f"{name}.yaml").write_text(text)

    return write


def made(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    return lm_eval_benchmarks(name, task=name, include_path=str(tmp_path), splits=SPLITS)[name]


@pytest.mark.parametrize("aggregation", sorted(AGGREGATION_REGISTRY))
def test_every_aggregation_is_used_rightly_or_refused(
    aggregation: str, task: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    metric = "perplexity" if aggregation == "perplexity" else "acc"
    task("some", "loglikelihood", metric, aggregation, aggregation != "perplexity")
    if aggregation in USED:
        assert made("some", tmp_path, monkeypatch).size("search") == 8
    else:
        with pytest.raises(BenchmarkError, match=r"metric 'acc', with the aggregation '.*', is not the mean"):
            made("some", tmp_path, monkeypatch)


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


def test_batches_on_the_device_are_bounded(live: LiveCausalLM, monkeypatch: pytest.MonkeyPatch):
    """Batches of whole splits come first and stay; endless subsets find no room."""
    monkeypatch.setattr("evohydra.scoring.benchmarks.live_lm.BATCHES", 60)
    lm = LiveLM(live.module, live.tokenizer, 4)
    first, _ = lm.tok_batch_encode(["1+1=", "2+2="])
    for number in range(40):
        lm.tok_batch_encode([f"{number}+1=", f"{number}+2="])
    kept = [tokens for tokens, _ in lm._encoded_batches.values()]
    assert sum(tokens.numel() for tokens in kept) <= 60
    again, _ = lm.tok_batch_encode(["1+1=", "2+2="])
    assert again is first
