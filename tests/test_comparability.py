"""Runs whose scores cannot be compared are said to be so, and are not tested or ranked against each other."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evohydra.report import make_console
from evohydra.report.comparability import Begun, groups, not_chosen
from evohydra.report.comparison import compare
from evohydra.report.contents import verdict
from evohydra.report.gathering import Job, chosen_by_auto, gather
from evohydra.report.paired_tests import strategies_against_each_other
from evohydra.report.score_figures import held_out
from evohydra.report.writing import write_report
from tests import tiny_models
from tests.commands import evohydra, python, workspace
from tests.saved_runs import save_run

SPLIT = {"examples": 60, "documents": "d", "prompts": "p", "settings": {}, "code": "c"}
IDENTITY: dict[str, Any] = {
    "scores": {
        "sources": {name: {"fingerprint": f"{name}0", "settings": f"{name}1"} for name in ("ja", "math", "base")},
        "configured_by": "ja",
        "alignment": {"tokenizer": "same", "missing": "error"},
        "dtype": "torch.float32", "out_dtype": "torch.float32", "device": "cpu", "backend": None,
        "code": {"my.module": "m"},
        "versions": {"torch": "2.0"},
        "benchmarks": {"sums": {
            "kind": "lm_eval", "metric": "closeness", "prompt_format": None,
            "splits": {split: copy.deepcopy(SPLIT) for split in ("search", "validation", "test")},
            "versions": {"lm_eval": "1"},
        }},
    },
    "search": {"optimizer": {}, "seed": 1, "code": {"my.optimizer": "o"}, "warm_start": {"digest": "w"}},
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "model": {"sources": {n: {"path": f"hub/{n}", "revision": None, "base": "hub/base"} for n in ("ja", "math")}},
    "benchmark": {"sums": {"prompt_format": None, "task": "sums"}},
    "dtype": "auto", "device": "auto", "tokenizer": "auto", "missing": "error", "seed": 1, "warm_start": "other",
}  # fmt: skip


def put(at: str, value: object) -> Callable[[dict[str, Any]], None]:
    """What sets the entry at a/b/c."""

    def change(data: dict[str, Any]) -> None:
        *path, last = at.split("/")
        for key in path:
            data = data[key]
        if value is None:
            del data[last]
        else:
            data[last] = value

    return change


def begun(*changes: tuple[str, object]) -> Begun:
    """A run with these changes; places begin with what they change, "identity" or "config"."""
    data = copy.deepcopy({"identity": IDENTITY, "config": CONFIG})
    for at, value in changes:
        put(at, value)(data)
    return Begun(data["identity"], data["config"])


OF_SUMS = "identity/scores/benchmarks/sums"


@pytest.mark.parametrize(
    ("at", "value"),
    [
        ("identity/scores/sources/ja/fingerprint", "other"),
        ("identity/scores/sources/math/settings", "other"),
        ("identity/scores/sources/base/fingerprint", "other"),
        ("identity/scores/versions/torch", "2.1"),
        ("identity/scores/code/my.module", "other"),
        ("identity/scores/device", "cuda"),
        ("identity/scores/dtype", "torch.bfloat16"),
        ("identity/scores/alignment/tokenizer", "base"),
        (f"{OF_SUMS}/versions/lm_eval", "2"),
        (f"{OF_SUMS}/metric", "exact"),
        (f"{OF_SUMS}/prompt_format", "Q: {question}"),
        (f"{OF_SUMS}/splits/test/documents", "other"),
        (f"{OF_SUMS}/splits/test/prompts", "other"),
        ("identity/scores/benchmarks/more", {"metric": "closeness"}),
        ("identity/search/code/my.optimizer", "other"),
        ("identity/search/warm_start", {"digest": "other"}),
        ("identity/earlier_versions", [{"torch": "1.9"}]),
    ],
)
def test_content_that_differs_under_the_same_options_cannot_be_compared(at: str, value: object) -> None:
    plain, moved = begun(), begun((at, value), ("config/seed", 2))
    assert groups([plain, moved, plain]) == [0, 1, 0]
    assert len(not_chosen(plain, moved)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        [("identity/search/seed", 2), ("config/seed", 2)],
        [(f"{OF_SUMS}/splits/search/documents", "other")],
        [("identity/scores/sources/ja/fingerprint", "other"), ("config/model/sources/ja/revision", "abc")],
        [("identity/scores/sources/math", None), ("config/model/sources/math", None)],
        [("identity/scores/dtype", "torch.bfloat16"), ("config/dtype", "bfloat16")],
        [("identity/scores/alignment/tokenizer", "union"), ("config/tokenizer", "union")],
        [(f"{OF_SUMS}/prompt_format", "Q: {question}"), ("config/benchmark/sums/prompt_format", "Q: {question}")],
        [("identity/scores/code/my.module", None)],
        [("identity/search/warm_start", {"digest": "other"}), ("config/warm_start", "another")],
    ],
)
def test_what_the_options_choose_is_what_is_compared(changes: list[tuple[str, object]]) -> None:
    assert groups([begun(), begun(*changes)]) == [0, 0]


@pytest.mark.parametrize("at", [f"{OF_SUMS}/splits/test/documents", f"{OF_SUMS}/metric"])
def test_other_examples_and_metrics_are_never_compared(at: str) -> None:
    chosen = begun((at, "other"), ("config/benchmark/sums/shuffle", 2))
    assert groups([begun(), chosen]) == [0, 1]


def test_a_source_that_all_have_is_looked_at_whatever_else_is_chosen() -> None:
    fewer = [("identity/scores/sources/math", None), ("config/model/sources/math", None)]
    assert groups([begun(), begun(*fewer, ("identity/scores/sources/ja/fingerprint", "other"))]) == [0, 1]
    another_base = [("config/model/sources/ja/base", "hub/other"), ("config/model/sources/math/base", "hub/other")]
    assert groups([begun(), begun(("identity/scores/sources/base/fingerprint", "other"), *another_base)]) == [0, 0]


def test_an_option_is_what_it_refers_to() -> None:
    refers = ("config/benchmark/sums/prompt_format", "${model.sources.ja.prompt}")
    one, other = (
        begun(refers, ("config/model/sources/ja/prompt", text), (f"{OF_SUMS}/prompt_format", text)) for text in "ab"
    )
    assert groups([one, other]) == [0, 0]
    assert groups([begun(refers), begun(refers, (f"{OF_SUMS}/prompt_format", "c"))]) == [0, 1]


def test_a_run_that_has_not_begun_is_in_nobodys_way() -> None:
    assert groups([Begun({}, CONFIG), begun(), begun(("identity/scores/device", "cuda"))]) == [0, 0, 1]


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """A sweep of three strategies with three seeds, between whose sixth and seventh job a branch has moved."""
    strategies = {"cmaes": 1.0, "de": 0.5, "random": 0.1}
    for number, (name, seed) in enumerate((name, seed) for name in strategies for seed in (1, 2, 3)):
        run = save_run(tmp_path / str(number), name, seed, 0.0, reach=strategies[name])
        change = [("identity/scores/sources/ja/fingerprint", "ab" * 32 if number < 6 else "cd" * 32)]
        (run / "run.json").write_text(json.dumps(begun(*change).identity))
        (run / ".hydra" / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "seed": seed}))
    return tmp_path


def test_a_sweep_over_a_branch_that_moves_is_no_comparison(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = gather([moved])
    said = list(verdict(jobs))
    (why,) = (each for each in said if each.startswith("From run"))
    assert why == "From run 0 to run 6: sources.ja.fingerprint has changed (SHA-256 abababababab, now cdcdcdcdcdcd)."
    assert any("group 1: 0, 1, 2, 3, 4, 5; group 2: 6, 7, 8. No test is made between groups." in each for each in said)
    (ranked,) = (each for each in said if "best on the test split" in each)
    assert ranked.startswith("In group 1, best on the test split is cmaes (group 1) with")
    assert "random" not in ranked
    (pair,) = strategies_against_each_other(jobs)
    assert {pair.better, pair.other} == {"cmaes (group 1)", "de (group 1)"}
    names = [name for name, *_ in held_out(jobs)]
    assert {"source ja (group 1)", "source ja (group 2)", "random (group 2)"} <= set(names)
    write_report([moved], moved)
    assert "From run 0 to run 6: sources.ja.fingerprint has changed" in (moved / "report.html").read_text()
    compare([moved], make_console())
    printed = " ".join(capsys.readouterr().out.split())
    assert "No test is made between groups. From run 0 to run 6: sources.ja.fingerprint" in printed
    assert "random (group 2)" in printed


def test_strategies_of_one_name_are_not_averaged_over_a_change(moved: Path) -> None:
    (moved / "5" / "run.json").write_text((moved / "6" / "run.json").read_text())
    strategies = {job.name: job.strategy for job in gather([moved])}
    assert (strategies["3"], strategies["4"], strategies["5"]) == ("de (group 1)", "de (group 1)", "de (group 2)")


def test_runs_over_weights_that_changed_between_them(tmp_path: Path) -> None:
    common = [*workspace(tmp_path), "baselines=null", "budget=6", "top=1", "report=false"]
    for name in ("cmaes", "random"):
        done = evohydra(*common, f"optimizer={name}", "optimizer.population=6", f"run={name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        tiny_models.save_model(tmp_path / "two", 9, base=tmp_path / "base")
    printed = python("-m", "evohydra.report.comparison", "outputs/cmaes", "outputs/random", cwd=tmp_path).stdout
    assert "From run cmaes to run random: sources.two.fingerprint has changed" in " ".join(printed.split())
    assert "group 1: cmaes; group 2: random" in " ".join(printed.split())


def test_searches_that_auto_has_chosen_by_the_optimizer_are_said_to_differ() -> None:
    """Else a table would be read as a comparison of optimizers alone."""

    def job(strategy: str, fitness: str, budget: int, config: Any = None) -> Job:
        identity = {**IDENTITY, "search": {"fitness": {"_target_": f"evohydra.searching.fitness.{fitness}"}}}
        given = config or {"budget": "auto", "fitness": {"likelihood": {}, "full": {}}}
        begun = Begun(identity, given)
        return Job(Path(strategy), (), strategy, given, (), (), {"budget": budget}, None, begun=begun)

    bo, cmaes = job("bo", "likelihood.Likelihood", 130), job("cmaes", "full.Full", 204)
    (said,) = chosen_by_auto([bo, cmaes, job("de", "full.Full", 204)])
    assert "bo: fitness=likelihood budget=130; cmaes, de: fitness=full budget=204." in said
    assert list(chosen_by_auto([cmaes, job("de", "full.Full", 204)])) == []
    both = {"budget": 9, "fitness": {"_target_": "x"}}
    alone = [job("a", "likelihood.Likelihood", 9, both), job("b", "full.Full", 9, both)]
    assert list(chosen_by_auto(alone)) == []
