"""Limits that a winner has to keep: their grammar, their statistics, what strategies are told, and a run with one."""

import io
import json
import re
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from rich.console import Console

from evohydra.assembly.guarding import check_limits, counted, doubts_about_examples, guard_of, guarding, limits_of
from evohydra.recipe import Checkpoint
from evohydra.report.ending import show_job
from evohydra.report.progress import SearchProgress
from evohydra.report.search_figures import best_so_far
from evohydra.report.sweeps import broken_limits
from evohydra.scoring.benchmarks import SPLITS, GivenAnswer
from evohydra.scoring.job import Evaluation, Job
from evohydra.scoring.measures import OF_ANSWERS, is_measure, repeats_itself
from evohydra.searching.bounds import BEST, Bound, parse_bound
from evohydra.searching.feasible import FLOOR, broken, feasible_first, margins, nearest, that_count
from evohydra.searching.feedback import example_scores, tell
from evohydra.searching.guard import ONE_SIDED, Kept, examples_for, half_width, sentence
from evohydra.searching.ledger import Record
from evohydra.searching.scores import ScoreStore
from tests.commands import evohydra, json_lines, python, workspace

SOURCES = ("ja", "math-7B")


def record(index: int, fitness: float | None, *limits: float) -> Record:
    named = {f"limit {at}": value for at, value in enumerate(limits)}
    scores = {} if fitness is None else {"a": [fitness]}
    return Record(index, 0, [index / 10], {}, f"recipe {index}", fitness, scores, limits=named)


@pytest.mark.parametrize(
    ("given", "bound"),
    [
        (0.98, Bound(None, 0.0, 0.98)),
        (3, Bound(None, 0.0, 3.0)),
        ("0.5", Bound(None, 0.0, 0.5)),
        ("source", Bound(BEST, 1.0, 0.0)),
        ("source best - 0.02", Bound(BEST, 1.0, -0.02)),
        ("source best-0.02", Bound(BEST, 1.0, -0.02)),
        ("1.2 x source", Bound(BEST, 1.2, 0.0)),
        ("0.9x source math-7B + 1", Bound("math-7B", 0.9, 1.0)),
        (" base-0.01 ", Bound("base", 1.0, -0.01)),
    ],
)
def test_bounds(given: object, bound: Bound) -> None:
    assert parse_bound("guard[0].at_least", given, SOURCES) == bound


@pytest.mark.parametrize(
    "given",
    ["", "source best - ", "2 source", "__import__('os')", "source best * 2", "base best", True, None, [1], "x"],
)
def test_bounds_that_are_none(given: object) -> None:
    with pytest.raises(ValueError, match=r"guard\[0\]\.at_least: "):
        parse_bound("guard[0].at_least", given, SOURCES)
    with pytest.raises(ValueError, match="expected one of the sources ja, math-7B, got 'other'"):
        parse_bound("guard[0].at_least", "source other", SOURCES)


class Sums:
    """A benchmark whose models write texts."""

    name, families = "sums", ("causal_lm",)
    reason: ClassVar[str | None] = None

    def size(self, split: str) -> int:
        return 10

    def ends(self) -> tuple[int, int, int]:
        return 0, 0, 0

    def lacks(self, change: str) -> str | None:
        return self.reason

    def shots(self) -> list[str]:
        return []

    def asked(self, *_: object) -> list[GivenAnswer]:
        return []


class Pictures(Sums):
    """One whose models do not."""

    name, reason = "pictures", "its models choose among answers and write none"


BENCHMARKS: dict[str, Any] = {"sums": Sums(), "pictures": Pictures(), "other": Sums()}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"benchmark": "sums"}, "expected at_least or at_most, one of them"),
        ({"benchmark": "sums", "at_least": 0.1, "at_most": 0.2}, "expected at_least or at_most, one of them"),
        ({"at_least": 0.1}, "expected benchmark or measure, one of them"),
        ({"benchmark": "sums", "measure": "truncated"}, "expected benchmark or measure, one of them"),
        ({"benchmark": "none", "at_least": 0.1}, "expected one of the benchmarks of this run, sums, pictures, other"),
        ({"measure": "size", "at_most": 1}, "expected one of truncated, mean_tokens"),
        ({"measure": "truncated", "at_most": 0.1}, "expected a benchmark, one of sums, pictures, other, as several"),
        ({"measure": "truncated", "of": "pictures", "at_most": 0.1}, "its models choose among answers"),
        ({"measure": "distance", "at_most": 0.1}, "it refers to the base, and this run has none"),
        ({"benchmark": "sums", "at_least": "base"}, "it refers to the base, and this run has none"),
        ({"benchmark": "sums", "atleast": 0.1}, "unknown keys"),
        ({"benchmark": "sums", "at_most": 12}, "of every benchmark's score more is better"),
    ],
)
def test_limits_that_cannot_be_kept_to_are_refused(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        limits_of([entry], BENCHMARKS, SOURCES, based=False)


@pytest.mark.parametrize(
    ("entry", "refused", "said"),
    [
        (
            {"measure": "truncated", "at_most": 0.02},
            True,
            "kept for sure on 10 validation examples; it takes 82",
        ),
        ({"measure": "japanese", "at_least": 1}, True, "on 10 validation examples; no number of them suffices"),
        ({"measure": "truncated"}, False, "does not keep it for sure on 10 validation examples; it takes 82"),
        ({"benchmark": "other", "at_least": "source ja"}, False, "no number of them suffices"),
        ({"measure": "truncated", "at_most": 0.2}, False, None),
        ({"benchmark": "other", "at_least": "source best - 0.2"}, False, None),
        ({"benchmark": "other", "at_least": 0.99}, False, None),
        ({"measure": "mean_tokens", "at_most": "1.2 x source"}, False, None),
    ],
)
def test_a_limit_says_how_many_examples_it_takes(entry: dict[str, Any], refused: bool, said: str | None) -> None:
    given = entry if "benchmark" in entry else {**entry, "of": "sums"}
    limits = limits_of([given], BENCHMARKS, SOURCES, based=True)
    if refused:
        with pytest.raises(ValueError, match=re.escape(said or "")):
            doubts_about_examples(limits, BENCHMARKS, 60)
    else:
        doubts = doubts_about_examples(limits, BENCHMARKS, 60)
        assert [said in each for each in doubts if said] == [True] * (said is not None)
        assert bool(doubts) == (said is not None)


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.1, 0.5])
def test_the_examples_of_a_margin_are_the_fewest(margin: float) -> None:
    found = examples_for(margin)
    assert found is not None
    low = [margin - half_width(np.full(n, margin), n, ONE_SIDED, share=True) for n in (found - 1, found)]
    assert low[0] < 0 <= low[1]
    assert examples_for(0.0) is None


def test_paths_have_no_distance_from_the_base() -> None:
    """The model in memory has the tensors of the path's first source, whatever the path is."""
    with pytest.raises(ValueError, match=r"guard\[0\]\.measure: a path through layers has other layers than the base"):
        check_limits([{"measure": "distance", "at_most": 0.1}], BENCHMARKS, SOURCES, paths=True)


def test_a_multiple_of_a_score_below_0_is_refused() -> None:
    """1.2 times a log-likelihood of -2 would be a looser bound, where a stricter one was meant."""
    (limit,) = limits_of([{"benchmark": "sums", "at_least": "1.2 x source a"}], BENCHMARKS, ("a",), based=False)
    guard = guard_of([limit], {"sums": Sums(), "other": Sums()}, {}, 4)
    assert guard is not None
    guard._references["search", "a"] = {limit.name: [-2.0, -1.0]}
    with pytest.raises(ValueError, match=r"a multiple of -1\.500"):
        guard._kept(None, limit, [-1.0, -1.0], "search", False)  # type: ignore[arg-type]


def test_the_tokens_of_an_answer_have_to_be_known() -> None:
    with pytest.raises(ValueError, match="not known how many tokens"):
        OF_ANSWERS["mean_tokens"](GivenAnswer("18", 1.0))


def test_limits_and_what_counts_beside_them() -> None:
    guard = [{"benchmark": "other", "at_least": "source best - 0.02"}, {"measure": "refusals", "of": "sums"}]
    one, two = limits_of(guard, BENCHMARKS, SOURCES, based=True)
    assert (one.text, one.sign) == ("score of other at least source best - 0.02", 1)
    assert (two.text, two.sign) == ("refusals of sums at most source best + 0.02", -1)
    assert list(counted(guard, BENCHMARKS)) == ["sums", "pictures"]
    assert guarding(guard) == {"other"}
    assert is_measure(one.name)
    assert not is_measure("log-likelihood per token of sums")
    with pytest.raises(ValueError, match="limits are set on every benchmark"):
        counted([{"benchmark": "sums", "at_least": 0.1}], {"sums": BENCHMARKS["sums"]})


@pytest.mark.parametrize(
    ("measure", "answer", "value"),
    [
        ("truncated", GivenAnswer("a", 1.0, cut=True), 1.0),
        ("truncated", GivenAnswer("a", 1.0, cut=False), 0.0),
        ("mean_tokens", GivenAnswer("a", 1.0, tokens=7), 7.0),
        ("japanese", GivenAnswer("答えは3です", 1.0), 1.0),
        ("japanese", GivenAnswer("It is 3", 1.0), 0.0),
        ("refusals", GivenAnswer("I'm sorry, but I cannot", 0.0), 1.0),
        ("refusals", GivenAnswer("申し訳ありませんが", 0.0), 1.0),
        ("refusals", GivenAnswer("She was sorry, and left", 0.0), 0.0),
        ("repetition", GivenAnswer("so it is and " * 20, 0.0), 1.0),
        ("repetition", GivenAnswer("There are three apples in the basket on the table.", 0.0), 0.0),
    ],
)
def test_measures_of_answers(measure: str, answer: GivenAnswer, value: float) -> None:
    assert OF_ANSWERS[measure](answer) == value
    assert not repeats_itself("aaa")


def test_a_bound_is_kept_with_the_confidence_that_is_told() -> None:
    """Models at the very bound are taken to keep it in no more than about one trial of twenty."""
    generator = np.random.default_rng(0)
    for rate in (0.5, 0.9):
        draws = (generator.random((2000, 100)) < rate) - rate
        passed = [draw.mean() - half_width(draw, 100, 0.95, share=True) >= 0 for draw in draws]
        assert np.mean(passed) <= 0.065
    alike = np.zeros(20)
    assert half_width(alike, 20, 0.95, share=True) > 0.05  # a few equal answers are no certainty
    assert half_width(alike, 200, 0.95, share=True) < half_width(alike, 20, 0.95, share=True)
    assert half_width(np.array([0.3]), 1, 0.95, share=False) == 0.0  # a distance has no error


def test_who_keeps_limits_is_above_who_does_not() -> None:
    """Deb's rules: feasible by fitness, then infeasible by violation, whatever their fitness."""
    records = [record(0, 0.9, -0.1), record(1, 0.2, 0.0), record(2, 0.5, 0.3), record(3, 0.99, -0.05), record(4, None)]
    told = feasible_first(records)
    assert [each.index for each in sorted(told[:4], key=lambda r: -(r.fitness or 0.0))] == [2, 1, 3, 0]
    assert told[0].fitness == pytest.approx(FLOOR - 0.1, abs=1e-6)
    assert told[4].fitness is None
    assert broken(record(5, 0.1, -0.1, 0.5, -0.2)) == pytest.approx(0.3)
    assert [each.index for each in nearest(records, 2)] == [1, 2]
    assert [each.index for each in nearest([records[0], records[3]], 1)] == [3]
    assert margins(records, records)[:, 0].tolist() == [-0.1, 0.0, 0.3, -0.05, -0.1]


def test_strategies_are_told_of_limits_in_their_own_way() -> None:
    told: list[Any] = []

    class Plain:
        def tell(self, genomes: object, fitness: Any) -> None:
            told.append(fitness.tolist())

    class Constrained(Plain):
        def tell_constraints(self, genomes: object, numbers: Any) -> None:
            told.append(numbers.tolist())

    records = [record(0, 0.9, -0.5), record(1, 0.2, 0.1)]
    genomes = np.array([each.genome for each in records])
    tell(Plain(), genomes, records, records)  # type: ignore[arg-type]
    assert told.pop() == pytest.approx([FLOOR - 0.5, 0.2])
    tell(Constrained(), genomes, records, records)  # type: ignore[arg-type]
    assert told == [[0.9, 0.2], [[-0.5], [0.1]]]


def test_scores_of_genomes_that_break_limits_are_below_all_others_of_their_kind() -> None:
    """Not by so much that nobody else can be told apart: strategies take shares of the sums of scores."""
    seen = [record(0, 0.9, -0.2), record(1, 0.2, 0.0), record(2, 0.5, 0.3), record(3, None)]
    assert example_scores(seen, seen)[:, 0].tolist() == pytest.approx([0.0, 0.2, 0.5, 0.2])
    assert example_scores(seen[:1], seen)[:, 0].tolist() == pytest.approx([0.0])


def test_the_best_and_the_front_are_of_genomes_that_keep_all_limits() -> None:
    records = [record(0, 0.9, -0.2), record(1, 0.2, 0.0), record(2, 0.5, 0.3), record(3, None)]
    assert [each.index for each in that_count(records)] == [1, 2]
    assert [each.index for each in that_count([records[0], records[3]])] == [0]
    twice = [record(0, 0.9, -0.2), replace(record(1, 0.9, -0.2), recipe="recipe 0"), record(2, 0.5, -0.3)]
    assert [each.index for each in nearest(twice, 2)] == [0, 2]  # different recipes


def test_the_best_so_far_is_of_genomes_that_keep_all_limits() -> None:
    console = Console(file=io.StringIO(), width=200)
    with SearchProgress(console, 3, 0) as progress:
        for each in (record(0, 0.9, -0.2), record(1, 0.2, 0.0), record(2, 0.1, 0.3)):
            progress(each)
    assert "3/3 genomes, best 0.2000, mean 0.4000" in console.file.getvalue()  # type: ignore[attr-defined]
    records = [
        SimpleNamespace(fitness=fitness, keeps=keeps) for fitness, keeps in ((0.9, False), (0.2, True), (None, True))
    ]
    assert best_so_far(SimpleNamespace(records=records)).tolist() == [-np.inf, 0.2, 0.2]  # type: ignore[arg-type]
    assert best_so_far(SimpleNamespace(records=records[:1])).tolist() == [0.9]  # type: ignore[arg-type]


def test_a_distance_has_no_interval() -> None:
    distance = Kept("distance from the base at most 10", 0.05, 10.0, 9.95, 9.95, 9.95, 1)
    assert sentence(distance) == "distance from the base at most 10: kept (0.050 against 10.000, margin +9.950)"
    assert sentence(replace(distance, n=24)).endswith("margin +9.950, +9.950 to +9.950 95 %, 24 examples)")


def test_failures_of_limits_are_forgotten_with_those_of_their_genome(tmp_path: Path) -> None:
    """Else the same command would find them on file for ever."""
    recipe, job = Checkpoint("a", "-"), Job(Checkpoint("a", "-"), "validation", {"score of b": (0, 1)})
    with closing(ScoreStore(tmp_path / "scores.jsonl", {})) as store:
        store.keep("genome 3", Job(recipe, "validation"), Evaluation({"a": [1.0]}))
        store.keep("limits of genome 3", job, Evaluation({}, error="ValueError: sick"))
        store.forget_failures("validation", {"genome 3"})
        assert store.find("limits of genome 3", job) is None
        assert store.find("genome 3", Job(recipe, "validation")) is not None


def test_jobs_of_a_sweep_share_what_bounds_refer_to(tmp_path: Path) -> None:
    job, other = (Job(Checkpoint(name, "-"), "search", {"score of b": (0, 1)}) for name in ("a", "g"))
    shared, known = tmp_path / "shared.jsonl", Evaluation({"score of b": [1.0, 0.0]})
    with ExitStack() as opened:
        one, two, three = (
            opened.enter_context(closing(ScoreStore(tmp_path / f"{at}.jsonl", dict.fromkeys(SPLITS, so), shared)))
            for at, so in enumerate(("so", "so", "otherwise"))
        )
        one.keep("limits of a", job, known)
        one.keep("limits of genome 1", other, known)
        assert two.find("limits of a", job) == known
        assert two.find("limits of genome 1", other) is None  # of no use to others
        assert three.find("limits of a", job) is None  # asked otherwise


def test_a_sweep_says_which_runs_keep_no_limits(tmp_path: Path) -> None:
    kept, broken = (SimpleNamespace(name=name, keeps_limits=keeps) for name, keeps in (("0", True), ("1", False)))
    (said,) = broken_limits([kept, broken])  # type: ignore[list-item]
    assert said.startswith("NO GENOME KEEPS ALL LIMITS for sure in 1 of 2 runs (1)")
    assert list(broken_limits([kept])) == []  # type: ignore[list-item]
    score = {"winner": {"score": 0.5}}
    console = Console(file=io.StringIO(), width=200)
    for keeps in (False, True):
        summary = {"validation": score, "test": score, "evaluations": 9, "guard": {"kept": keeps}}
        show_job(console, tmp_path, "0", summary)
    one, two = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "9 genomes, NO GENOME KEEPS ALL LIMITS;" in one
    assert "LIMITS" not in two


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A run that cannot keep its limits, and its command line."""
    root = tmp_path_factory.mktemp("guarded")
    limits = "guard=[{measure:mean_tokens,at_most:0.01 x source},{measure:distance,at_most:10}]"
    given = [*workspace(root), "budget=8", "top=1", "baselines=null", "run=guarded", limits, "guard_examples=5"]
    done = evohydra(*given, cwd=root)
    return SimpleNamespace(root=root, given=given, done=done, run=root / "outputs" / "guarded")


def test_limits_that_no_genome_keeps_end_clearly(guarded: SimpleNamespace) -> None:
    assert guarded.done.returncode == 0, guarded.done.stderr
    summary = json.loads((guarded.run / "summary.json").read_text())
    guard = summary["guard"]
    assert not guard["kept"]
    assert (guard["keeping"], guard["scored"]) == (0, 8)
    assert guard["said"][0].startswith("NO GENOME KEEPS ALL LIMITS for sure on validation")
    tokens, distance = guard["test"]
    assert tokens["margin"] < 0 < distance["margin"]
    assert tokens["low"] <= tokens["margin"] <= tokens["high"]
    assert "NO GENOME KEEPS ALL LIMITS" in (guarded.run / "winner" / "README.md").read_text()
    lines = json_lines(guarded.run / "ledger.jsonl")
    assert all(len(line["limits"]) == 2 for line in lines)


def test_limits_are_part_of_what_a_run_is_and_replay(guarded: SimpleNamespace) -> None:
    before = (guarded.run / "ledger.jsonl").read_bytes()
    replayed = python("-m", "evohydra.replay", guarded.run, cwd=guarded.root)
    assert replayed.returncode == 0, replayed.stderr
    cut = before.splitlines(keepends=True)[:7]
    Path(guarded.run / "ledger.jsonl").write_bytes(b"".join(cut))
    again = evohydra(*guarded.given, cwd=guarded.root)
    assert again.returncode == 0, again.stderr
    assert (guarded.run / "ledger.jsonl").read_bytes() == before
    other = evohydra(*guarded.given[:-1], "guard_examples=6", cwd=guarded.root)
    assert other.returncode != 0
    assert "another configuration" in other.stderr
