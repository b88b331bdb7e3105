"""Models whose outputs are not numbers have failed: on every kind of question, on every split, and in all that is told.

A model of NaNs is no model that answers 0: argmax of NaN is 0, which is often the right choice.
"""

import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from evohydra.families.causal_lm import CausalLM
from evohydra.recipe import Checkpoint, Node
from evohydra.report.tables import markdown
from evohydra.scoring.benchmarks import SPLITS, Benchmark, Split
from evohydra.scoring.benchmarks.not_numbers import LogitsWatch
from evohydra.scoring.job import Evaluation, Examples, Job
from evohydra.scoring.worker import Worker
from evohydra.searching.scheduler import Scheduler
from tests import tiny_visual
from tests.commands import built, evohydra, json_lines, workspace, write_lines
from tests.contracts.test_benchmarks import CPU, benchmark
from tests.contracts.test_benchmarks import tasks as toy_tasks  # noqa: F401
from tests.scripted import NO_SOURCES, scheduling
from tests.test_visual_qa import benchmark as visual_benchmark
from tests.tiny_models import CHARACTERS

Spoil = Callable[[Tensor], object]  # changes logits (batch, length, vocabulary)
SPOILT: Mapping[str, Spoil] = {
    "nan": lambda logits: logits.fill_(math.nan),
    "inf": lambda logits: logits[..., 3].fill_(math.inf),
    "one row": lambda logits: logits[0, :, 5].fill_(math.nan),
    "masked": lambda logits: logits[..., 7].fill_(-math.inf),
}


class Spoilable:
    """A live model that becomes the recipe called "healthy", or one whose logits are spoilt."""

    def __init__(self, live: Any) -> None:
        self._live, self._spoil = live, cast(Spoil, None)
        live.module.register_forward_hook(self._change)

    def _change(self, _: object, __: object, output: Any) -> None:
        self._spoil(output.logits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._live, name)

    def become(self, recipe: Node, _: Any) -> None:
        assert isinstance(recipe, Checkpoint)
        self._spoil = SPOILT.get(recipe.name, lambda logits: None)


def evaluated(live: Any, asked: Any, name: str) -> Evaluation:
    nothing = cast(Any, None)
    benchmarks: Mapping[str, Benchmark] = {"asked": asked}
    return Worker(nothing, cast(Any, Spoilable(live)), benchmarks, NO_SOURCES, nothing).evaluate(
        Job(Checkpoint(name, "-"), "search")
    )


OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "choose": {}, "log_likelihood": {}, "rolling": {}, "sums": {},
    "sampled": {"generation_kwargs": {"do_sample": True, "temperature": 1.0}},
}  # fmt: skip
ALL = {"choose": 96, "log_likelihood": 24, "rolling": 24}


@pytest.mark.parametrize("name", ["nan", "inf", "one row"])
@pytest.mark.parametrize("kind", OPTIONS)
def test_a_language_model_that_gives_no_numbers_fails(
    kind: str,
    name: str,
    toy_tasks: Path,  # noqa: F811
    trio: tuple[Path, Path, Path],
) -> None:
    live = CausalLM().live_model(trio[1], CPU, torch.float32)
    asked = benchmark("sums" if kind == "sampled" else kind, toy_tasks, batch_size=8, **OPTIONS[kind])
    failed = evaluated(live, asked, name)
    assert failed.scores == {}
    assert failed.error is not None
    assert failed.error.startswith("FloatingPointError: ")
    assert failed.error.endswith(" are not numbers")
    if kind in ALL and name == "nan":
        assert f" {ALL[kind]} of {ALL[kind]} log-likelihoods" in failed.error


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("name", ["healthy", "masked"])
def test_a_model_that_rules_out_a_token_is_none_the_worse(
    kind: str,
    name: str,
    toy_tasks: Path,  # noqa: F811
    trio: tuple[Path, Path, Path],
) -> None:
    live = CausalLM().live_model(trio[1], CPU, torch.float32)
    asked = benchmark("sums" if kind == "sampled" else kind, toy_tasks, batch_size=8, **OPTIONS[kind])
    expected = asked(live, "search").tolist()
    found = evaluated(live, asked, name)
    if kind in ("log_likelihood", "rolling") and name == "masked":  # a text with that token has no finite score
        assert found.error is not None
        assert "scores of benchmark 'asked' are not numbers" in found.error
        return
    assert found.error is None
    assert len(found.scores["asked"]) == len(expected) == 24
    if name == "healthy" and kind != "sampled":
        assert found.scores["asked"] == expected


@pytest.mark.parametrize("split", SPLITS)
def test_a_model_that_finds_all_choices_impossible_has_chosen_none(
    split: Split,
    toy_tasks: Path,  # noqa: F811
    trio: tuple[Path, Path, Path],
) -> None:
    """A model that finds some of them impossible, "twelve" or the first one, chooses among the others."""
    live = CausalLM().live_model(trio[1], CPU, torch.float32)
    asked = benchmark("choose", toy_tasks, batch_size=8)
    ruled_out: list[int] = []

    def rule_out(_: object, __: object, output: Any) -> None:
        output.logits.index_fill_(-1, torch.tensor(ruled_out, dtype=torch.int64), -math.inf)

    live.module.register_forward_hook(rule_out)
    for characters in ("", "w", "w0", "w01"):
        ruled_out[:] = [CHARACTERS.index(character) for character in characters]
        assert np.isfinite(asked(live, split)).all()
    ruled_out[:] = [CHARACTERS.index(character) for character in "012t"]
    size = asked.size(split)
    with pytest.raises(FloatingPointError, match=f"all choices are -inf in {size} of {size} examples"):
        asked(live, split)


def test_a_vision_language_model_that_gives_no_numbers_fails(tmp_path: Path) -> None:
    """With beams, as the paper asks."""
    asked = visual_benchmark(tiny_visual.save_questions(tmp_path / "data"))
    live = tiny_visual.llava()
    failed = evaluated(live, asked, "nan")
    assert failed.error is not None
    assert "predictions are not numbers" in failed.error
    assert evaluated(tiny_visual.llava(), asked, "healthy").error is None


def test_the_watch_counts_predictions() -> None:
    class Output:
        past_key_values = ()

        def __init__(self, logits: Tensor) -> None:
            self.logits = logits

    module = torch.nn.Identity()
    watch = LogitsWatch(module)
    for bad in (0, 2, 1):
        logits = torch.zeros(4, 3, 5)
        logits[:, 0, 0] = math.nan  # within the prompt: not what is predicted from
        logits[:bad, -1, 2] = math.nan
        logits[:, -1, 1] = -math.inf
        module(Output(logits))
        assert logits[:, -1].isnan().sum() == 0
    with pytest.raises(FloatingPointError, match="the logits of 3 of 12 predictions are not numbers"):
        watch.check()
    watch.begin()
    module(Output(torch.zeros(4, 3, 5)))
    watch.check()
    module(Output(torch.full((1, 1, 5), -math.inf)))  # which rules out every token
    with pytest.raises(FloatingPointError, match="1 of 5"):
        watch.check()


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("split", ["search", "validation", "test"])
def test_a_score_that_is_no_number_fails_wherever_it_comes_from(score: float, split: Split, tmp_path: Path) -> None:
    """From a worker, and from a file of scores."""

    def evaluate(recipe: Node, split: Split, examples: Examples | None) -> Evaluation:
        return Evaluation({"known": [1.0, score, 0.0]}, {"merge": 0.5})

    def failed(scheduler: Scheduler) -> Evaluation:
        (pending,) = scheduler.submit([("genome 0", Job(Checkpoint("a", "-"), split))])
        return scheduler.result(pending)

    expected = Evaluation({}, {"merge": 0.5}, "FloatingPointError: 1 of 3 scores of benchmark 'known' are not numbers")
    with scheduling(evaluate, tmp_path) as scheduler:
        assert failed(scheduler) == expected
    (entry,) = json_lines(tmp_path / "scores.jsonl")
    assert entry["error"] == expected.error
    write_lines(  # as earlier versions wrote it
        tmp_path / "scores.jsonl", [entry | {"scores": {"known": [score]}, "error": None}]
    )
    with scheduling(evaluate, tmp_path) as scheduler:
        assert failed(scheduler).error == "FloatingPointError: 1 of 1 scores of benchmark 'known' are not numbers"


@pytest.fixture
def numberless(tmp_path: Path) -> list[str]:
    """The command line of a run whose benchmark gives NaN where benchmark.numberless.nan says."""
    arguments = workspace(tmp_path)
    group = tmp_path / "conf" / "benchmark"
    group.mkdir()
    (group / "numberless.yaml").write_text(
        "# @package benchmark.numberless\n_target_: tests.fakes.numberless\n_partial_: true\nnan: ''\n"
    )
    without = [each for each in arguments if "benchmark" not in each and each != "report=false"]
    return [*without, "benchmark=numberless", "baselines=null", "top=2", "budget=6"]


REASON = "FloatingPointError: 1 of 3 scores of benchmark 'numberless' are not numbers"


def test_a_winner_that_fails_on_test_ends_the_run_with_all_written(numberless: list[str], tmp_path: Path) -> None:
    """Test examples choose nothing, so no other candidate takes its place."""
    run = tmp_path / "run"
    process = evohydra(*numberless, "benchmark.numberless.nan='test 5'", f"hydra.run.dir={run}", cwd=tmp_path)
    assert process.returncode == 1
    assert f"the winner failed on the test split ({REASON})" in process.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert summary["test"]["winner"]["score"] is None
    assert summary["test"]["winner"]["error"] == REASON
    assert set(summary["gain"].values()) == {None}
    assert "nan" not in process.stdout
    assert "NaN" not in (run / "summary.json").read_text()
    assert f"| winner | failed: {REASON} | | |" in (run / "winner" / "README.md").read_text()
    assert f"failed on the test split: {REASON.split(' ')[0]}" in (run / "report.html").read_text()


def test_a_source_that_fails_on_test_is_told_with_its_reason(numberless: list[str], tmp_path: Path) -> None:
    out = io.StringIO()
    run = built([*numberless, "benchmark.numberless.nan='test 1'"], tmp_path / "run")
    summary: Any = run(Console(file=out, width=200))
    assert summary["test"]["sources"]["one"]["error"] == REASON
    assert summary["gain"]["best_source"] == "two"
    assert summary["gain"]["failed"] == {"one": REASON}
    for told in (out.getvalue(), (tmp_path / "run" / "winner" / "README.md").read_text()):
        assert "Source one failed on test and is not compared." in " ".join(told.split())
    assert math.isfinite(summary["gain"]["p"])
    assert REASON in out.getvalue()
    assert f"| source one | failed: {REASON} | | |" in markdown(summary)
    assert REASON.split(":")[1].strip().split("'")[0] in (tmp_path / "run" / "report.html").read_text()


def test_a_genome_and_a_candidate_that_give_nan_fail_alone(numberless: list[str], tmp_path: Path) -> None:
    run = built([*numberless, "benchmark.numberless.nan='search 3|validation 1'"], tmp_path / "run")
    summary: Any = run(Console(file=io.StringIO(), width=200))
    lines = json_lines(tmp_path / "run" / "ledger.jsonl")
    assert [line["error"] for line in lines] == [None, None, REASON, None, None, None]
    assert [each["validation"] is None for each in summary["validation"]["candidates"]] == [False, True]
    assert math.isfinite(summary["test"]["winner"]["score"])
    assert np.isfinite(summary["gain"]["difference"])
