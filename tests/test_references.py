"""fitness.references=verified: right answers in models' own words, what is refused, and whole searches by them."""

import re
import shutil
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.recipe import Checkpoint, Node
from evohydra.report.blocks import FigureBlock
from evohydra.report.contents import contents, verdict
from evohydra.report.gathering import gather
from evohydra.report.tables import references_sentence
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.likelihood import (
    Verifiable,
    benchmark_of,
    check_verifiable,
    likelihood_name,
    of_verified,
)
from evohydra.scoring.benchmarks.lm_eval import lm_eval_benchmarks
from evohydra.scoring.benchmarks.lm_eval_benchmark import LMEvalBenchmark
from evohydra.scoring.job import Written
from evohydra.searching.fitness.full import Full
from evohydra.searching.fitness.likelihood import Likelihood
from evohydra.searching.fitness.subset import Subset
from evohydra.searching.json_lines import LedgerError
from evohydra.searching.references import MOST, References, told_of, verified_references
from tests import tiny_models, tiny_studio
from tests.commands import built, carried_out, json_lines, workspace, write_lines
from tests.kill_repeatedly import without_seconds

CPU = torch.device("cpu")
BOUNDS = {"search": {"start": 0, "stop": 20}, "validation": None, "test": {"start": 20, "stop": 30}}
NAME = "lm_eval"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_lucky(tiny_models.save_task(tmp_path_factory.mktemp("tasks")))


@pytest.fixture
def live(trio: tuple[Path, Path, Path]) -> LiveCausalLM:
    return CausalLM().live_model(trio[1], CPU, torch.float32)


def benchmark(tasks: Path, task: str = "lucky", **options: Any) -> LMEvalBenchmark:
    return lm_eval_benchmarks(task, task=task, include_path=str(tasks), shuffle=None, splits=BOUNDS, **options)[task]


def by_hand(live: LiveCausalLM, prompt: str, answer: str) -> float:
    """The mean log-probability of the tokens of `answer` after `prompt`: one sequence, one softmax."""
    before, whole = (live.tokenizer.encode(text, add_special_tokens=False) for text in (prompt, prompt + answer))
    with torch.no_grad():
        logits = live.module(torch.tensor([whole])).logits[0].double().log_softmax(dim=-1)
    places = range(len(before), len(whole))
    return float(sum(logits[place - 1, whole[place]] for place in places)) / len(places)


def test_the_likelihood_of_verified_answers_is_that_of_the_likeliest(tasks: Path, live: LiveCausalLM) -> None:
    asked = benchmark(tasks)
    assert isinstance(asked, Verifiable)
    texts = {4: ["12", "7"], 9: ["3+3=6"], 17: [" 5"]}
    prompts = {place: asked.describe("search", place)[0] for place in texts}
    expected = {place: max(by_hand(live, prompts[place], each) for each in texts[place]) for place in texts}
    name = likelihood_name("lucky", "token", "log", "0123456789ab")
    found = of_verified(name, {"lucky": asked}, texts)
    np.testing.assert_allclose(found(live, "search"), [*expected.values()], rtol=1e-4)
    np.testing.assert_allclose(found(live, "search", [17, 4]), [expected[17], expected[4]], rtol=1e-4)
    probability = likelihood_name("lucky", "token", "probability", "0123456789ab")
    np.testing.assert_array_equal(
        of_verified(probability, {"lucky": asked}, texts)(live, "search"), np.exp(found(live, "search"))
    )
    assert benchmark_of(name) == benchmark_of(probability) == "lucky"


def test_what_is_written_is_the_text_that_was_judged(tasks: Path, live: LiveCausalLM) -> None:
    asked = benchmark(tasks)
    answers, scores = asked.written(live, "search", [3, 8, 1])
    assert answers == asked.answers(live, "search", [3, 8, 1])
    assert scores == asked(live, "search", [3, 8, 1]).tolist()


def test_what_cannot_be_verified_is_refused(tasks: Path) -> None:
    choice = "task: choose\ndataset_path: json\ndataset_kwargs: {data_files: {test: sums.jsonl}}\ntest_split: test\n"
    choice += 'doc_to_text: "{{question}}"\noutput_type: multiple_choice\ndoc_to_choice: ["0", "1"]\n'
    choice += "doc_to_target: 1\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    (tasks / "choose.yaml").write_text(choice)
    lower = (
        (tasks / "lucky.yaml")
        .read_text()
        .replace("task: lucky", "task: lower")
        .replace("better: true", "better: false")
    )
    (tasks / "lower.yaml").write_text(lower)
    for task, words in (
        ("choose", "chooses among given answers, so that there is no wording to verify"),
        ("lower", "is better if 'lucky' is lower"),
    ):
        with pytest.raises(BenchmarkError, match=words):
            check_verifiable({task: benchmark(tasks, task)})
    with pytest.raises(BenchmarkError, match="models write no answers for benchmark 'tiny/brightness'"):
        check_verifiable(tiny_studio.benchmarks())
    check_verifiable({"lucky": benchmark(tasks)})


def found(texts: dict[int, Sequence[str]], **more: dict[int, Sequence[str]]) -> References:
    of = {"a": texts, **more}
    return References(of, dict.fromkeys(of, 40), 2, 80)


def test_examples_are_drawn_from_those_that_are_solved() -> None:
    kind = Likelihood(sizes={"a": 100}, seed=3, examples=20, references="verified")
    assert kind.questions is not None
    assert len(kind.questions["a"]) == 40
    solved = {place: [f"{place}です。"] for place in kind.questions["a"][:30]}
    by, verified = kind.with_references(found(solved))
    (name,) = verified
    assert name == likelihood_name("a", "token", "log", found(solved).digests()["a"])
    assert len(verified[name]) == 20
    assert {place: solved[place] for place in verified[name]} == verified[name]
    assert isinstance(by, Likelihood)
    assert by.questions is None
    changed = {**solved, kind.questions["a"][0]: ["x"]}
    assert name not in kind.with_references(found(changed))[1]


@pytest.mark.parametrize(("solved", "enough"), [(16, True), (15, False), (0, False)])
def test_too_few_solved_examples_leave_the_search_to_the_metric(solved: int, enough: bool) -> None:
    references = found({place: ["x"] for place in range(solved)}, b={place: ["x"] for place in range(20)})
    sizes = {"a": 100, "b": 100}
    for metric_examples, expected in ((None, Full), (10, Subset)):
        kind = Likelihood(sizes=sizes, seed=3, examples=64, references="verified", metric_examples=metric_examples)
        by, verified = kind.with_references(references)
        assert isinstance(by, Likelihood if enough else expected)
        assert bool(verified) is enough
    told = references_sentence(told_of(references, verified))
    assert told.startswith(
        f"Verified references: 2 models have solved {solved} of 40 examples of a, in {solved} wordings;"
    )
    words = "by 16 and 20 of these" if enough else "too few to search by, so that genomes are scored by the metric"
    assert words in told


def test_a_kind_that_waits_for_references_judges_nothing() -> None:
    with pytest.raises(ValueError, match="expected the references before the first generation"):
        Likelihood(sizes={"a": 100}, seed=3, references="verified")(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("options", "words"), [
    ({"questions": 70}, r"fitness\.questions: expected null with references=task, got 70"),
    ({"references": "verified", "questions": 20}, r"expected 64 \(examples\) or more, got 20"),
])  # fmt: skip
def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Likelihood(sizes={"a": 100}, seed=3, **options)


class Models:
    """Models that answer what they are told to; `asked` are their labels in turn."""

    def __init__(self, answers: dict[str, dict[int, tuple[str, float]] | str]) -> None:
        self.asked: list[str] = []
        self._answers = answers
        self.nodes: dict[str, Node] = {name: Checkpoint(name, "-") for name in answers}

    def __call__(self, node: Node, name: str, places: Sequence[int]) -> Written:
        assert isinstance(node, Checkpoint)
        self.asked.append(node.name)
        told = self._answers[node.name]
        if isinstance(told, str):
            return Written([], [], told)
        return Written([told[place][0] for place in places], [told[place][1] for place in places])


def test_right_answers_of_all_models_are_kept_once_each(tmp_path: Path) -> None:
    models = Models({
        "one": {0: ("72です。", 1.0), 5: ("7", 0.0), 6: (" ", 1.0)},
        "two": {0: ("答えは72です。", 1.0), 5: ("8", 0.5), 6: ("9", 1.0)},
        "again": {0: ("72です。", 1.0), 5: ("7", 0.0), 6: ("9", 1.0)},
        **{f"more {at}": {0: (f"{at}", 1.0), 5: ("7", 0.0), 6: ("9", 1.0)} for at in range(3)},
    })  # fmt: skip
    asked = {"a": [0, 5, 6]}
    references = verified_references(tmp_path / "references.jsonl", models.nodes, asked, models)
    assert references.texts == {"a": {0: ["72です。", "答えは72です。", "0", "1"], 6: ["9"]}}
    assert len(references.texts["a"][0]) == MOST
    assert (references.models, references.generated, references.asked) == (6, 18, {"a": 3})


def test_a_file_that_is_not_finished_is_gone_on_with(tmp_path: Path) -> None:
    right = {place: (f"{place}", 1.0) for place in range(3)}
    nodes = Models({"one": right, "two": right}).nodes
    whole = verified_references(tmp_path / "whole.jsonl", nodes, {"a": [0, 1, 2]}, Models({"one": right, "two": right}))
    lines = json_lines(tmp_path / "whole.jsonl")
    for kept in range(len(lines) + 1):
        models = Models({"one": right, "two": right})
        write_lines(tmp_path / "cut.jsonl", lines[:kept])
        assert verified_references(tmp_path / "cut.jsonl", nodes, {"a": [0, 1, 2]}, models) == whole
        assert models.asked == ["one", "two"][kept:]
        assert json_lines(tmp_path / "cut.jsonl") == lines


def test_a_model_that_fails_leaves_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    models = Models({"one": "FloatingPointError: NaN", "two": {0: ("1", 1.0)}})
    references = verified_references(tmp_path / "some.jsonl", models.nodes, {"a": [0]}, models)
    assert (references.models, references.texts) == (1, {"a": {0: ["1"]}})
    assert "no answers of one: FloatingPointError: NaN" in caplog.text
    again = verified_references(tmp_path / "some.jsonl", models.nodes, {"a": [0]}, models)
    assert (again, models.asked) == (references, ["one", "two"])
    broken = Models({"one": "it broke", "two": "it broke"})
    with pytest.raises(BenchmarkError, match=r"none of 2 models could answer \(one: it broke\)"):
        verified_references(tmp_path / "none.jsonl", broken.nodes, {"a": [0]}, broken)
    assert json_lines(tmp_path / "none.jsonl") == []


def test_scores_beyond_one_do_not_say_what_is_right(tmp_path: Path) -> None:
    models = Models({"one": {0: ("1", 100.0)}})
    with pytest.raises(BenchmarkError, match="benchmark 'a' gives an answer 100; expected scores up to 1"):
        verified_references(tmp_path / "references.jsonl", models.nodes, {"a": [0]}, models)


def test_references_of_other_models_or_examples_are_refused(tmp_path: Path) -> None:
    models, path = Models({"one": {0: ("1", 1.0), 1: ("1", 1.0)}}), tmp_path / "references.jsonl"
    verified_references(path, models.nodes, {"a": [0]}, models)
    for nodes, asked in ((models.nodes, {"a": [0, 1]}), ({"two": Checkpoint("two", "-")}, {"a": [0]})):
        with pytest.raises(LedgerError, match="line 1 is of another model or of other examples than this run asks"):
            verified_references(path, nodes, asked, models)
    lines = json_lines(path)
    write_lines(path, [{**lines[0], "right": {"0": "2"}}, *lines[1:]])
    with pytest.raises(LedgerError, match=r"its last line has the digests .* it was changed after it was written"):
        verified_references(path, models.nodes, {"a": [0]}, models)


def arguments(root: Path) -> list[str]:
    given = workspace(root)
    tiny_models.save_lucky(root / "task")
    return [
        *given, f"benchmark.{NAME}.task=lucky", f"benchmark.{NAME}.metric=lucky", "optimizer=bo",
        "optimizer.population=6", "fitness=likelihood", "fitness.references=verified", "fitness.examples=8",
        "fitness.check_every=2", "budget=14", "baselines=null",
    ]  # fmt: skip


def logs(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: without_seconds(json_lines(directory / f"{name}.jsonl")) for name in ("ledger", "references")
    }
    scores = without_seconds(json_lines(directory / "scores.jsonl"))
    return {**found, "scores": sorted(scores, key=repr)}


def test_a_search_by_verified_references(tmp_path: Path) -> None:
    """The references are of the sources and the uniform merge; a killed run goes on with them, wherever it was killed.

    Two workers find the same numbers as one.
    """
    given, console = arguments(tmp_path), Console(file=StringIO(), width=200)
    directory = tmp_path / "runs" / "one"
    summary = built(given, directory)(console)
    *lines, last = json_lines(directory / "references.jsonl")
    assert [line["label"] for line in lines] == ["one", "two", "uniform"]
    assert all(len(line["asked"]) == 16 for line in lines)
    solved = {place for line in lines for place in line["right"]}
    told = summary["search"]["references"]  # type: ignore[typeddict-item]
    assert told["generated"] == 3 * 16
    of = told["benchmarks"][NAME]
    assert (of["asked"], of["solved"], of["used"], of["digest"]) == (16, len(solved), 8, last["frozen"][NAME])
    ledger = json_lines(directory / "ledger.jsonl")
    likely = likelihood_name(NAME, "token", "log", last["frozen"][NAME])
    assert {*ledger[0]["scores"]} == {likely, NAME}
    assert all(set(map(str, line["examples"][likely])) <= solved for line in ledger)
    assert all(line["fitness"] == pytest.approx(np.maximum(line["scores"][likely], -5).mean()) for line in ledger)
    assert summary["examples_scored"] == sum(line["scored"] for line in ledger) + 48
    assert console.file.getvalue().count("Verified references: 3 models have solved") == 2  # type: ignore[attr-defined]

    carried_out([*given, "executor=processes", "executor.workers=2"], tmp_path / "runs" / "two")
    assert logs(tmp_path / "runs" / "two") == logs(directory)
    for kept in range(len(lines) + 1):
        killed = tmp_path / "runs" / f"killed {kept}"
        killed.mkdir()
        shutil.copy(directory / "run.json", killed)
        write_lines(killed / "references.jsonl", lines[:kept])
        carried_out(given, killed)
        assert logs(killed) == logs(directory)
    for kept in (4, 9):  # in the search
        killed = tmp_path / "runs" / f"later {kept}"
        killed.mkdir()
        for name in ("run.json", "references.jsonl", "scores.jsonl"):
            shutil.copy(directory / name, killed)
        write_lines(killed / "ledger.jsonl", json_lines(directory / "ledger.jsonl")[:kept])
        carried_out(given, killed)
        assert logs(killed)["ledger"] == logs(directory)["ledger"]


def test_a_ledger_of_other_references_is_refused_by_name(tmp_path: Path) -> None:
    given, directory = arguments(tmp_path), tmp_path / "runs" / "one"
    carried_out(given, directory)
    path = directory / "references.jsonl"
    *lines, last = json_lines(path)
    other = [{**line, "right": {place: f"{text}!" for place, text in line["right"].items()}} for line in lines]
    write_lines(path, other)  # as if it had been made anew, where answers are rounded otherwise
    words = rf"line 1 holds 'log-likelihood per token \(verified {last['frozen'][NAME]}\) of {NAME}'"
    with pytest.raises(LedgerError, match=words):
        carried_out(given, directory)
    path.unlink()  # they are made anew, the same
    carried_out(given, directory)
    assert json_lines(path) == [*lines, last]


def test_a_search_whose_examples_nobody_solves_goes_by_the_metric(tmp_path: Path) -> None:
    given = [each for each in arguments(tmp_path) if not re.match(r"benchmark\.lm_eval\.(task|metric)=", each)]
    given += ["benchmark.lm_eval.task=sums", "benchmark.lm_eval.metric=exact"]
    summary = carried_out(given, tmp_path / "run")
    assert summary["search"]["references"]["benchmarks"][NAME]["used"] == 0
    ledger = json_lines(tmp_path / "run" / "ledger.jsonl")
    assert all(set(line["scores"]) == {NAME} for line in ledger)
    assert len(ledger) == 14
    assert "measure" not in summary["search"]


def test_a_report_does_not_draw_fitness_by_other_references_together(tmp_path: Path) -> None:
    given = [*arguments(tmp_path), "fitness.check_every=1"]
    for name, more in (("verified", []), ("task", ["fitness.references=task"])):
        directory = tmp_path / "runs" / name
        carried_out([*given, *more], directory)
        (directory / ".hydra").mkdir()  # which the command writes
        for file, told in (("overrides", more), ("config", {"seed": 1, "budget": 14})):
            (directory / ".hydra" / f"{file}.yaml").write_text(yaml.safe_dump(told))
    jobs = gather([tmp_path / "runs"])
    assert {job.name: job.fitness_is for job in jobs} == {"verified": "verified likelihood", "task": "likelihood"}
    captions = {
        block.name: block.caption
        for section in contents(jobs, tmp_path)
        for block in section.blocks
        if isinstance(block, FigureBlock) and block.name.startswith("fitness")
    }
    assert "of verified references here, which each run has of its own" in captions["fitness_by_verified_likelihood"]
    assert "Fitness is by likelihood here." in captions["fitness"]
    (text,) = [
        str(block) for block in verdict([job for job in jobs if job.name == "verified"]) if "Verified" in str(block)
    ]
    assert "3 models have solved" in text
