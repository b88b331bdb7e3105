"""Tasks whose numbers say less than they seem to: the search's direction is right, or it is an error before it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.likelihood import check_likely
from evohydra.scoring.benchmarks.lm_eval import lm_eval_benchmarks
from evohydra.scoring.benchmarks.lm_eval_benchmark import LMEvalBenchmark
from tests.tiny_models import save_trio

SPLITS = {"search": {"start": 0, "stop": 8}, "validation": None, "test": {"start": 8, "stop": 16}}
LIKELY = {"output_type": "loglikelihood"}
CHOOSES = {
    "output_type": "multiple_choice",
    "doc_to_choice": ["0", "1", "2", "twelve"],
    "doc_to_target": "{{answer|int % 4}}",
}
ROLLS = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{question}}"}
WRITES = {"output_type": "generate_until", "generation_kwargs": {"until": ["x"], "max_gen_toks": 4}}
FUNCTIONS = """
def loss(doc, results):
    return {"loss": -results[0][0]}


def words(doc, results):
    (total,) = results
    count = len(doc["question"].split("+"))
    return {"word_perplexity": (total, count), "byte_perplexity": (total, 7), "bits_per_byte": (total, 7)}


def likely_words(doc, results):
    return {"word_perplexity": (results[0][0], len(doc["answer"]))}


def by_answer(doc, results):
    return {"word_perplexity": (results[0], -results[0])}


def halves(doc, results):
    return {"word_perplexity": (results[0] / 2, 3)}


def difference(doc, results):
    return {"difference": abs(results[0][0] - results[1][0])}


def counts(references, predictions):
    return {"length": float(len(predictions[0])), "right": float(predictions == references)}


def fewer(references, predictions):
    return float(len(predictions[0]))
"""
Made = Callable[..., LMEvalBenchmark]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveCausalLM:
    _, one, _ = save_trio(tmp_path_factory.mktemp("models"))
    return CausalLM().live_model(one, torch.device("cpu"), torch.float32)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(
        "".join(f'{{"question": "{i}+1=", "answer": "{i + 1}", "place": {i % 4}}}\n' for i in range(16))
    )
    (tmp_path / "own.py").write_text(FUNCTIONS)

    def make(settings: dict[str, Any], metrics: object, **options: object) -> LMEvalBenchmark:
        task = {
            "task": "some",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}},
            "test_split": "test",
            "doc_to_text": "{{question}}",
            "doc_to_target": "{{answer}}",
            **settings,
            "metric_list": metrics,
        }
        text = re.sub(r"'(!function [\w.]+)'", r"\1", yaml.safe_dump(task))
        (tmp_path / "some.yaml").write_text(text)
        built = lm_eval_benchmarks(
            "some", task="some", include_path=str(tmp_path), splits=SPLITS, shuffle=None, **options
        )
        return built["some"]

    return make


def metric(name: str, aggregation: str, better: bool) -> list[dict[str, object]]:
    return [{"metric": name, "aggregation": aggregation, "higher_is_better": better}]


def by_lm_eval(live: LiveCausalLM, name: str) -> float:
    """The metric of the search split by lm-eval's own loop and model."""
    loaded = TaskManager(include_path=Path.cwd(), include_defaults=False).load(["some"])["tasks"]
    lm = HFLM(pretrained=live.module, tokenizer=live.tokenizer, batch_size=3)
    found = evaluate(lm=lm, task_dict=loaded, samples={"some": list(range(8))}, bootstrap_iters=0)["results"]["some"]
    return float(found[f"{name},none"])


@pytest.mark.parametrize("aggregation", ["mean", "nanmean"])
def test_a_mean_of_log_likelihoods_that_is_said_to_be_better_when_lower_is_refused(
    aggregation: str, made: Made, live: LiveCausalLM
) -> None:
    """What lm-eval gives for an example of `perplexity` is a log-likelihood: the search went the wrong way."""
    with pytest.raises(BenchmarkError, match="mean of log-likelihoods, of which higher is better"):
        made(LIKELY, metric("perplexity", aggregation, False))
    scores = made(LIKELY, metric("perplexity", aggregation, True))(live, "search")
    assert np.mean(scores) == pytest.approx(by_lm_eval(live, "perplexity"))


def test_a_brier_score_that_is_said_to_be_better_when_higher_is_refused(made: Made) -> None:
    with pytest.raises(BenchmarkError, match="'brier_score', is the better the lower it is"):
        made(CHOOSES, metric("brier_score", "brier_score", True))


def test_a_perplexity_of_what_is_no_log_likelihood_is_refused(made: Made, live: LiveCausalLM) -> None:
    built = made({**LIKELY, "process_results": "!function own.loss"}, metric("loss", "perplexity", False))
    with pytest.raises(BenchmarkError, match=r"'loss' is made a perplexity of, and gives \d.*0 or less"):
        built(live, "search")


@pytest.mark.parametrize("name", ["word_perplexity", "byte_perplexity", "bits_per_byte"])
def test_rolling_tasks_that_count_words_themselves_are_taken(name: str, made: Made, live: LiveCausalLM) -> None:
    """As wikitext does; the sum of log-likelihoods over the numbers of words is what lm-eval reports."""
    kinds = {"word_perplexity": 2, "byte_perplexity": 7, "bits_per_byte": 7}
    metrics = [
        *metric("word_perplexity", "weighted_perplexity", False),
        *metric("byte_perplexity", "weighted_perplexity", False),
        *metric("bits_per_byte", "bits_per_byte", False),
    ]
    built = made({**ROLLS, "process_results": "!function own.words"}, metrics, metric=name)
    assert built.title == f"some (log-likelihood instead of {name})"
    rate = -float(built(live, "search").mean()) / kinds[name]
    expected = rate / np.log(2) if name == "bits_per_byte" else np.exp(rate)
    assert by_lm_eval(live, name) == pytest.approx(expected)


def test_likelihoods_of_answers_that_are_weighted_are_taken(made: Made, live: LiveCausalLM) -> None:
    settings = {**LIKELY, "process_results": "!function own.likely_words"}
    scores = made(settings, metric("word_perplexity", "weighted_perplexity", False))(live, "search")
    assert by_lm_eval(live, "word_perplexity") == pytest.approx(np.exp(-scores.sum() / 8))  # eight answers of a digit


@pytest.mark.parametrize("function", ["by_answer", "halves"])
def test_weights_that_depend_on_answers_are_refused(function: str, made: Made) -> None:
    with pytest.raises(BenchmarkError, match="weights examples by numbers of the task's own"):
        made(
            {**ROLLS, "process_results": f"!function own.{function}"},
            metric("word_perplexity", "weighted_perplexity", False),
        )


@pytest.mark.parametrize(
    ("settings", "metrics", "options"),
    [
        (CHOOSES, metric("acc", "mean", False), {}),
        ({**CHOOSES, "process_results": "!function own.difference"}, metric("difference", "mean", False), {}),
        (WRITES, metric("exact_match", "mean", False), {"complete_references": True}),
        (WRITES, metric("!function own.fewer", "mean", False), {"complete_references": True}),
    ],
    ids=["accuracy", "difference", "exact match", "function"],
)
def test_likelihoods_of_targets_do_not_stand_for_metrics_that_are_better_when_lower(
    settings: dict[str, Any], metrics: object, options: dict[str, Any], made: Made
) -> None:
    """fitness=likelihood, which auto may choose, would have searched for models that find the targets likely."""
    built = made(settings, metrics, **options)
    with pytest.raises(BenchmarkError, match=r"fitness=likelihood: .* is better if .* is lower.* choose fitness=full"):
        check_likely({"some": built})


def test_a_brier_score_is_searched_by_likelihood(made: Made) -> None:
    check_likely({"some": made(CHOOSES, metric("brier_score", "brier_score", False))})


def test_a_function_gives_several_numbers_of_which_one_is_chosen(made: Made, live: LiveCausalLM) -> None:
    """As humaneval's does: `pass@1` is a number of the function `pass_at_k`."""
    metrics = metric("!function own.counts", "mean", False)
    with pytest.raises(BenchmarkError, match=r"Metrics with a number for each example: \['length', 'right'\]"):
        made(WRITES, metrics)(live, "search")
    scores = made(WRITES, metrics, metric="length")(live, "search")
    assert -np.mean(scores) == pytest.approx(by_lm_eval(live, "length"))
    assert -np.mean(scores) > 0
    with pytest.raises(BenchmarkError, match=r"metric 'longth' gives None"):
        made(WRITES, metrics, metric="longth")(live, "search")


def test_functions_that_disagree_say_nothing_of_their_numbers(made: Made) -> None:
    metrics = [*metric("!function own.counts", "mean", True), *metric("!function own.fewer", "mean", False)]
    with pytest.raises(BenchmarkError, match=r"metric 'length' is none of \['counts', 'fewer'\]"):
        made(WRITES, metrics, metric="length")


def test_a_metric_without_aggregation_is_named(made: Made) -> None:
    with pytest.raises(BenchmarkError, match="says neither aggregation"):
        made(WRITES, [{"metric": "!function own.fewer"}])


@pytest.mark.parametrize("name", ["acc", "acc_norm", "acc_bytes", "acc_mutual_info"])
def test_the_choice_that_is_shown_is_the_one_that_counts(name: str, made: Made, live: LiveCausalLM) -> None:
    built = made(CHOOSES, metric(name, "mean", True))
    shown, scores = built.answers(live, "search", range(8)), built(live, "search")
    right = [built.describe("search", index)[1] for index in range(8)]
    assert [answer.strip() == target for answer, target in zip(shown, right, strict=True)] == list(scores == 1.0)


def test_choices_that_are_beginnings_are_shown_as_such(made: Made, live: LiveCausalLM) -> None:
    """As in Winogrande, where all choices have one continuation."""
    settings = {**CHOOSES, "doc_to_text": "place", "doc_to_target": "question"}
    built = made(settings, metric("acc", "mean", True))
    assert built.describe("search", 3) == ("3+1=", "twelve")
    shown, scores = built.answers(live, "search", range(8)), built(live, "search")
    right = [built.describe("search", index)[1] for index in range(8)]
    assert [answer == target for answer, target in zip(shown, right, strict=True)] == list(scores == 1.0)


def test_a_chat_of_several_turns_needs_a_chat_template(made: Made) -> None:
    """lm-eval refuses it too; without a template it changed nothing, without a word."""
    with pytest.raises(BenchmarkError, match=r"fewshot_as_multiturn=true .* chat_template=true"):
        made(WRITES, metric("exact_match", "mean", True), fewshot_as_multiturn=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 3, "num_return_sequences": 2}, "one answer for each prompt"),
        ({"return_dict_in_generate": True}, "one answer for each prompt"),
        ({"seed": 3}, "'seed'"),
        ({"prompt_lookup_num_tokens": 3}, "batch_size = 1"),
    ],
)
def test_settings_of_a_task_that_generate_refuses_are_named(
    settings: dict[str, Any], message: str, made: Made, live: LiveCausalLM
) -> None:
    built = made(
        {**WRITES, "generation_kwargs": {**WRITES["generation_kwargs"], **settings}},
        metric("exact_match", "mean", True),
    )
    with pytest.raises(BenchmarkError, match=rf"generation_kwargs \{{.*{message}"):
        built(live, "search")


def test_stop_strings_of_a_task_that_are_none_are_named(made: Made) -> None:
    with pytest.raises(ValueError, match=r"generation_kwargs.until: expected .* got None"):
        made({**WRITES, "generation_kwargs": {"until": None}}, metric("exact_match", "mean", True))


def test_answers_without_a_cache_are_the_same(made: Made, live: LiveCausalLM) -> None:
    built = made(WRITES, metric("exact_match", "mean", True))
    expected = built.answers(live, "search", range(8))
    kwargs = {**WRITES["generation_kwargs"], "use_cache": False}
    assert (
        made({**WRITES, "generation_kwargs": kwargs}, metric("exact_match", "mean", True)).answers(
            live, "search", range(8)
        )
        == expected
    )
