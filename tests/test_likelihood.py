"""fitness=likelihood: log-likelihoods of right answers by hand, what is refused, and a whole search by them."""

import itertools
import re
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from rich.console import Console

from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.recipe import Checkpoint
from evohydra.report.blocks import FigureBlock
from evohydra.report.contents import contents, verdict
from evohydra.report.gathering import by_split, gather
from evohydra.report.progress import SearchProgress
from evohydra.report.score_figures import optimism_figure
from evohydra.report.search_figures import fitness_figure
from evohydra.report.tables import likelihood_sentence, search_sentences
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.likelihood import (
    LOWEST,
    Likely,
    benchmark_of,
    check_likely,
    likelihood_name,
    likelihoods_of,
    measure_of,
)
from evohydra.scoring.benchmarks.lm_eval import lm_eval_benchmarks
from evohydra.scoring.benchmarks.lm_eval_benchmark import LMEvalBenchmark
from evohydra.scoring.statistics import rank_correlation
from evohydra.searching.ends import at_the_ends
from evohydra.searching.fitness.generation import Generation, Judged, Member, members_of
from evohydra.searching.fitness.likelihood import Likelihood, agreement
from evohydra.searching.fitness.likelihood_scale import Both, scale_of
from evohydra.searching.ledger import Record
from evohydra.searching.objectives import Objective
from evohydra.searching.plan import known_points
from evohydra.searching.summary import scored_on_search
from tests import tiny_models, tiny_studio
from tests.commands import built, carried_out, json_lines, workspace
from tests.kill_repeatedly import without_seconds

CPU = torch.device("cpu")
BOUNDS = {"search": {"start": 0, "stop": 20}, "validation": None, "test": {"start": 20, "stop": 30}}
COMMON = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: sums.jsonl}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
"""
WRITES = """
output_type: generate_until
generation_kwargs: {until: ["x"], max_gen_toks: 4}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
TASKS = {
    "at_once": WRITES + 'doc_to_target: "{{answer}}"\ntarget_delimiter: ""\n',
    "spaced": WRITES + 'doc_to_target: "{{answer}}"\n',
    "several": WRITES + 'doc_to_target: !function right.several\ntarget_delimiter: ""\n',
    "nothing": WRITES + 'doc_to_target: ""\n',
    "choose": """
output_type: multiple_choice
doc_to_choice: ["0", "1", "2", "twelve"]
doc_to_target: "{{answer|int % 4}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "choose_by_name": """
output_type: multiple_choice
doc_to_choice: ["0", "1", "2", "twelve"]
doc_to_target: "twelve"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "rolling": """
output_type: loglikelihood_rolling
doc_to_target: "{{question}}"
metric_list: [{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}]
""",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tiny_models.save_task(tmp_path_factory.mktemp("tasks"))
    for name, more in TASKS.items():
        (root / f"{name}.yaml").write_text(COMMON.format(name=name) + more)
    (root / "right.py").write_text("def several(doc):\n    return [str(doc['answer']), '7', str(doc['answer'])]\n")
    return root


@pytest.fixture
def live(trio: tuple[Path, Path, Path]) -> LiveCausalLM:
    return CausalLM().live_model(trio[1], CPU, torch.float32)


def benchmark(name: str, tasks: Path, **options: Any) -> LMEvalBenchmark:
    settings: dict[str, Any] = {"include_path": str(tasks), "shuffle": None, "splits": BOUNDS, **options}
    return lm_eval_benchmarks(name, task=name, **settings)[name]


def by_hand(live: LiveCausalLM, prompt: str, answer: str) -> tuple[float, int]:
    """The log-probability of `answer` after `prompt`, and how many tokens it has: one sequence, one softmax."""
    before, whole = (live.tokenizer.encode(text, add_special_tokens=False) for text in (prompt, prompt + answer))
    with torch.no_grad():
        logits = live.module(torch.tensor([whole])).logits[0].double().log_softmax(dim=-1)
    places = range(len(before), len(whole))
    return float(sum(logits[place - 1, whole[place]] for place in places)), len(places)


def documents(asked: LMEvalBenchmark) -> list[Any]:
    return [asked._tasks["search"].eval_docs[index] for index in asked._indices["search"]]


def of(asked: LMEvalBenchmark, live: LiveCausalLM, per: Any = "token", examples: Any = None) -> NDArray[np.float64]:
    return asked.log_likelihoods(live, "search", examples, per)


def test_the_log_likelihood_of_a_reference_is_that_of_its_tokens(tasks: Path, live: LiveCausalLM) -> None:
    asked = benchmark("at_once", tasks)
    assert isinstance(asked, Likely)
    told = [by_hand(live, each["question"], str(each["answer"])) for each in documents(asked)]
    np.testing.assert_allclose(of(asked, live), [total / tokens for total, tokens in told], rtol=1e-4)
    lengths = [len(str(each["answer"])) for each in documents(asked)]
    np.testing.assert_allclose(
        of(asked, live, "byte"), [total / n for (total, _), n in zip(told, lengths, strict=True)], rtol=1e-4
    )
    np.testing.assert_allclose(of(asked, live, examples=[7, 2]), of(asked, live)[[7, 2]], rtol=1e-4)


def test_a_reference_counts_after_the_delimiter_or_at_once(tasks: Path, live: LiveCausalLM) -> None:
    """The likelier of both: models that were not trained on the delimiter do not write it."""
    asked = benchmark("spaced", tasks)
    expected = []
    for each in documents(asked):
        told = [by_hand(live, each["question"], before + str(each["answer"])) for before in ("", " ")]
        expected.append(max(total / tokens for total, tokens in told))
    np.testing.assert_allclose(of(asked, live), expected, rtol=1e-4)


def test_of_several_references_the_likeliest_counts(tasks: Path, live: LiveCausalLM) -> None:
    asked = benchmark("several", tasks)
    expected = []
    for each in documents(asked):
        told = [by_hand(live, each["question"], answer) for answer in (str(each["answer"]), "7")]
        expected.append(max(total / tokens for total, tokens in told))
    np.testing.assert_allclose(of(asked, live), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["choose", "choose_by_name"])
def test_of_a_choice_it_is_the_share_of_the_right_one(name: str, tasks: Path, live: LiveCausalLM) -> None:
    asked = benchmark(name, tasks)
    expected = []
    for each in documents(asked):
        told = np.array([by_hand(live, each["question"], f" {choice}")[0] for choice in ("0", "1", "2", "twelve")])
        right = 3 if name == "choose_by_name" else int(each["answer"]) % 4
        expected.append(told[right] - np.log(np.exp(told).sum()))
    np.testing.assert_allclose(of(asked, live), expected, rtol=1e-4)
    np.testing.assert_array_equal(of(asked, live), of(asked, live, "byte"))


def test_a_model_that_rules_the_answer_out_has_the_lowest_number(
    tasks: Path, live: LiveCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = benchmark("at_once", tasks)
    of(asked, live)
    monkeypatch.setattr(asked._lm, "loglikelihood", lambda requests, **_: [(-np.inf, False)] * len(requests))
    assert of(asked, live).tolist() == [LOWEST] * 20
    monkeypatch.setattr(asked._lm, "loglikelihood", lambda requests, **_: [(np.nan, False)] * len(requests))
    with pytest.raises(FloatingPointError, match="20 of 20 log-likelihoods are not numbers"):
        of(asked, live)


@pytest.mark.parametrize(("name", "expected"), [
    ("rolling", "is of the type loglikelihood_rolling, which is scored by log-likelihoods already"),
    ("nothing", r"example 0 of the search split of benchmark 'nothing' has no right answer \(its target is ''\)"),
])  # fmt: skip
def test_tasks_without_references_are_refused(name: str, expected: str, tasks: Path) -> None:
    with pytest.raises(BenchmarkError, match=expected):
        check_likely({name: benchmark(name, tasks)})


def test_benchmarks_without_references_are_refused() -> None:
    class Judge:
        name = "beauty"

    judge: Any = {"beauty": Judge()}
    with pytest.raises(BenchmarkError, match="benchmark 'beauty' has no likelihood of right answers"):
        check_likely(judge)
    assert likelihoods_of(judge) == {}


def test_names_tell_log_likelihoods_from_scores() -> None:
    assert benchmark_of(likelihood_name("mgsm/ja", "byte")) == "mgsm/ja"
    assert benchmark_of(likelihood_name("mgsm/ja", "token")) == benchmark_of("mgsm/ja") == "mgsm/ja"


def members(scores: list[dict[str, dict[int, float]]]) -> list[Member]:
    recipes = [Checkpoint(str(at), "-") for at in range(len(scores))]
    found = members_of(0, np.zeros((len(scores), 1)), [{}] * len(scores), recipes)
    for member, each in zip(found, scores, strict=True):
        member.scores.update(each)
    return found


def judged(fitness: Likelihood, generation: Generation) -> list[Judged]:
    requests, found = fitness(generation), []
    answer: Any = None
    while True:
        try:
            request = requests.send(answer)
        except StopIteration:
            return found
        answer = None
        if isinstance(request, Judged):
            found.append(request)


def test_hopeless_examples_count_as_the_clip_says() -> None:
    name = likelihood_name("a", "token")
    generation = Generation(1, members([{name: {0: -0.5, 3: -80.0}}]), {"a": 4})
    for clip, expected in ((-5.0, -2.75), (None, -40.25)):
        (found,) = judged(Likelihood(sizes={"a": 4}, seed=1, examples=2, clip=clip), generation)
        assert found.fitness == pytest.approx(expected)
        assert found.means == {"a": pytest.approx(expected)}


def test_a_probability_is_the_exponential_and_has_a_name_of_its_own(tasks: Path, live: LiveCausalLM) -> None:
    asked = benchmark("at_once", tasks)
    found = likelihoods_of({"sums": asked})
    log, plain = (likelihood_name("sums", "token", scale) for scale in ("log", "probability"))
    np.testing.assert_array_equal(found[plain](live, "search"), np.exp(found[log](live, "search")))
    assert benchmark_of(log) == benchmark_of(plain) == "sums"
    assert (measure_of([log, "sums"]), measure_of([plain]), measure_of(["sums"])) == (
        "log-likelihood",
        "likelihood",
        None,
    )


def test_the_mean_of_probabilities_is_what_genomes_are_told(tmp_path: Path) -> None:
    arguments = [
        *workspace(tmp_path), "optimizer=bo", "optimizer.population=6", "fitness=likelihood",
        "fitness.scale=probability", "fitness.examples=8", "fitness.check_every=0", "budget=10", "baselines=null",
    ]  # fmt: skip
    summary = carried_out(arguments, tmp_path / "run")
    for each in json_lines(tmp_path / "run" / "ledger.jsonl"):
        ((name, scores),) = each["scores"].items()
        assert name.startswith("likelihood per token of ")
        assert each["fitness"] == pytest.approx(np.mean(scores))
        assert 0 <= min(scores) <= max(scores) <= 1
    assert summary["search"]["winner"]["measure"] == "likelihood"


def test_the_weights_of_an_objective_are_those_of_the_benchmarks() -> None:
    first, second = (likelihood_name(name, "token") for name in "ab")
    generation = Generation(
        1, members([{first: {0: -1.0}, second: {0: -3.0}}]), {"a": 4, "b": 4}, Objective({"a": 0.25, "b": 0.75})
    )
    (found,) = judged(Likelihood(sizes={"a": 4, "b": 4}, seed=1, examples=1), generation)
    assert found.fitness == pytest.approx(-2.5)


def test_a_checked_generation_says_how_well_both_rank() -> None:
    name = likelihood_name("a", "token")
    for metric, words in (
        (np.arange(9.0), r"rank correlation 1\.00 \(95 % 1\.00 to 1\.00\) of 9 genomes$"),
        (-np.arange(9.0), "of 9 genomes: too low, the search begins anew by the metric$"),
        (np.zeros(9), "too few different genomes to compare"),
    ):
        scores = [{name: {0: -9.0 + at}, "a": {0: float(metric[at])}} for at in range(9)]
        found = judged(
            Likelihood(sizes={"a": 4}, seed=1, examples=1, clip=None), Generation(0, members(scores), {"a": 4})
        )
        assert re.search(words, found[0].note or "")
        assert [each.note for each in found[1:]] == [None] * 8


def test_an_interval_of_a_rank_correlation_holds_it() -> None:
    """Of many samples of a normal distribution whose rank correlation is known: 95 % of the intervals, about."""
    generator = np.random.default_rng(4)
    correlation = 0.7
    truth = 6 / np.pi * np.arcsin(correlation / 2)
    held = 0
    for _ in range(500):
        one = generator.normal(size=16)
        other = correlation * one + np.sqrt(1 - correlation**2) * generator.normal(size=16)
        found = rank_correlation(one.tolist(), other.tolist())
        assert found is not None
        held += found.low < truth < found.high
    assert 0.91 < held / 500 < 0.985
    assert rank_correlation([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]) is None
    assert rank_correlation([1.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) is None


def test_the_summary_tells_log_likelihoods_from_scores() -> None:
    name = likelihood_name("a", "token")
    records = [
        Record(at, 0, [0.1], {}, str(at), -1.0 - at, {name: [-1.0 - at], "a": [1.0 / (1 + at)]}) for at in range(6)
    ]
    score = scored_on_search(records[2], Objective())
    assert (score["score"], score["measure"]) == (-3.0, "log-likelihood")
    found = agreement(records, Objective())
    assert found is not None
    assert (found.value, found.n) == (pytest.approx(1.0), 6)
    assert agreement([Record(0, 0, [0.1], {}, "0", 0.5, {"a": [0.5]})], Objective()) is None
    low = {"value": 0.0, "low": -0.4, "high": 0.4, "n": 20.0}
    assert "too low to search by" in likelihood_sentence(low)
    assert "too low" not in likelihood_sentence({**low, "high": 0.6})


def test_a_search_by_likelihood(tmp_path: Path) -> None:
    """Search examples are not generated but in checks; the winner is chosen and tested by the metric.

    Two workers find the same numbers as one.
    """
    arguments = [
        *workspace(tmp_path), "optimizer=bo", "optimizer.population=6", "fitness=likelihood", "fitness.examples=8",
        "fitness.check_every=2", "budget=14", "baselines=null",
    ]  # fmt: skip
    summary = carried_out(arguments, tmp_path / "runs" / "one")
    carried_out([*arguments, "executor=processes", "executor.workers=2"], tmp_path / "runs" / "two")
    one, two = (json_lines(tmp_path / "runs" / each / "ledger.jsonl") for each in ("one", "two"))
    assert without_seconds(two) == without_seconds(one)
    (metric,) = {benchmark_of(each) for each in one[0]["scores"]}
    likely = likelihood_name(metric, "token")
    kinds = [set(each["scores"]) for each in one]
    assert kinds == [{likely, metric}] * 6 + [{likely}] * 4 + [{likely, metric}] * 4
    assert all(each["fitness"] == pytest.approx(np.maximum(each["scores"][likely], -5).mean()) for each in one)
    assert {each["scored"] for each in one if each["note"] is None or "the same" not in each["note"]} == {8, 16}
    others = [each for each in json_lines(tmp_path / "runs" / "one" / "scores.jsonl") if each["split"] != "search"]
    assert others
    assert all(set(each["scores"]) == {metric} for each in others)
    assert summary["search"]["winner"]["measure"] == "log-likelihood"


def test_what_cannot_be_searched_by_likelihood_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"the scorer of benchmark 'tiny/brightness' .* gives no probability"):
        check_likely(tiny_studio.benchmarks())
    arguments = [*workspace(tmp_path), "benchmark.lm_eval.task=rolling", "benchmark.lm_eval.metric=bits_per_byte"]
    (tmp_path / "task" / "rolling.yaml").write_text(COMMON.format(name="rolling") + TASKS["rolling"])
    with pytest.raises(BenchmarkError, match=r"fitness=likelihood: the task of benchmark .* is scored by log-likeli"):
        built([*arguments, "fitness=likelihood"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("optimizer", "widest"), [("bo", (-0.5, 2.5)), ("cmaes", (0.0, 1.5)), ("random", (0.0, 1.5))])
def test_only_an_optimizer_that_widens_ranges_gets_wider_ones(
    optimizer: str, widest: tuple[float, float], tmp_path: Path
) -> None:
    arguments = [f"optimizer={optimizer}", "tracker=none", "report=false"]
    space = built(arguments, tmp_path).plan.space
    ends = [set(space.values(np.full(len(space.names), unit)).values()) for unit in (0.0, 1.0)]
    assert ends == [{widest[0]}, {widest[1]}]
    begins = (1 / 6, 2 / 3) if optimizer == "bo" else (0.0, 1.0)
    assert all(axis.begins == pytest.approx(begins) for axis in space.axes)


def test_numbers_at_the_ends_of_their_ranges_are_told(tmp_path: Path) -> None:
    space = built(["tracker=none", "report=false"], tmp_path).plan.space
    genome = np.full(len(space.names), 0.5)
    inside = at_the_ends(space, genome)
    assert inside == {"lowest": [], "highest": [], "numbers": len(genome)}
    assert list(search_sentences({"at_the_ends": inside})) == []
    genome[:3], genome[3] = 1.0, 0.005
    ends = at_the_ends(space, genome)
    assert ends is not None
    assert (ends["highest"], ends["lowest"]) == (list(space.names[:3]), [space.names[3]])
    (sentence,) = search_sentences({"at_the_ends": ends})
    assert f"1 is at the lower end (such as {space.names[3]}) and 3 are at the upper end" in sentence
    (sentence,) = search_sentences({"at_the_ends": ends, "known_as": "uniform"})
    assert sentence.startswith("The winner was known before this search: it is the uniform merge")  # and no more


def test_a_genome_that_is_a_known_merge_is_called_by_its_name(tmp_path: Path) -> None:
    plan = built(["tracker=none", "report=false", "optimizer=bo"], tmp_path).plan
    points, _ = known_points(plan.space, ["sources", "uniform"])
    assert [plan.known_as(point.tolist()) for point in points] == ["tiny_ja", "tiny_math", "uniform"]
    assert plan.known_as((points[0] + 0.01).tolist()) is None


def test_a_report_shows_no_log_likelihood_as_a_score(tmp_path: Path) -> None:
    """Beside a search by the metric: a figure of its own, no number in the columns of scores, and the correlation."""
    common = [*workspace(tmp_path), "baselines=null", "budget=14"]
    likely = ["optimizer=bo", "optimizer.population=6", "fitness=likelihood", "fitness.check_every=1"]
    for name, more in (("full", []), ("likely", likely)):
        carried_out([*common, *more], tmp_path / "runs" / name)
        (tmp_path / "runs" / name / ".hydra").mkdir()  # which the command writes
        for file, told in (("overrides", more), ("config", {"seed": 1, "budget": 14})):
            (tmp_path / "runs" / name / ".hydra" / f"{file}.yaml").write_text(yaml.safe_dump(told))
    jobs = gather([tmp_path / "runs"])
    assert [job.fitness_is for job in jobs] == ["metric", "likelihood"]
    assert [(each["best seen"] is None, each["search"] is None) for each in map(by_split, jobs)] == [
        (False, False),
        (True, True),
    ]
    assert jobs[0].benchmarks == jobs[1].benchmarks == ("lm_eval",)
    figures = {
        block.name for section in contents(jobs, tmp_path) for block in section.blocks if isinstance(block, FigureBlock)
    }
    assert {"fitness", "fitness_by_likelihood"} <= figures
    labels = [fitness_figure([job], "evaluations").axes[0].get_ylabel() for job in jobs]
    assert labels == ["fitness on the search split", "log-likelihood on the search split"]
    assert fitness_figure(jobs, "evaluations").axes[0].get_ylabel() == "best fitness so far"
    drawn = optimism_figure(jobs[1:])
    assert drawn is not None
    assert {place for line in drawn.axes[0].lines for place in line.get_xdata()} == {2, 3}  # validation and test
    (sentence,) = [each for each in verdict(jobs[1:]) if "Likelihood ranks" in each]
    assert f"{jobs[1].summary['search']['likelihood']['value']:.2f} (Spearman, 95 %" in sentence  # type: ignore[index]
    assert [each for each in verdict(jobs[:1]) if "Likelihood ranks" in each] == []


@pytest.mark.parametrize("slope", [0.25, 3.0])
def test_scores_by_the_metric_on_the_scale_of_log_likelihoods(slope: float) -> None:
    """The better half decides; genomes are ranked as by the metric, whatever the benchmarks weigh."""
    metric = np.linspace(0.1, 0.9, 20)
    both = [Both({"a": slope * at - 2, "b": slope * at - 4}, {"a": at, "b": at}) for at in metric]
    both += [Both({"a": -50.0 - at, "b": -50.0}, {"a": 0.3, "b": 0.1}) for at in range(20)]
    for objective in (Objective(), Objective({"a": 0.2, "b": 0.8})):
        scale = scale_of(both, objective)
        assert scale.slope == pytest.approx(slope)
        assert scale({"a": 0.5, "b": 0.5}) == pytest.approx({"a": slope * 0.5 - 2, "b": slope * 0.5 - 4})
    same = scale_of([Both({"a": -1.0}, {"a": 0.5})] * 9, Objective())
    assert (same.slope, same({"a": 0.75})) == (1.0, {"a": pytest.approx(-0.75)})


def test_a_last_stage_needs_genomes_with_both_scores() -> None:
    with pytest.raises(ValueError, match=r"fitness\.metric_from: expected null where check_every is 0"):
        Likelihood(sizes={"a": 4}, seed=1, check_every=0, metric_from=10)


def test_a_search_by_likelihood_with_a_last_stage(tmp_path: Path) -> None:
    """From genome 14 on the metric alone; a run that goes on, and two workers, find the same numbers."""
    arguments = [
        *workspace(tmp_path), "optimizer=bo", "optimizer.population=6", "fitness=likelihood", "fitness.examples=8",
        "fitness.check_every=2", "fitness.metric_from=14", "fitness.metric_examples=12", "baselines=null",
    ]  # fmt: skip
    summary = carried_out([*arguments, "budget=22"], tmp_path / "runs" / "one")
    ledger = json_lines(tmp_path / "runs" / "one" / "ledger.jsonl")
    (metric,) = {benchmark_of(each) for each in ledger[0]["scores"]}
    assert [set(each["scores"]) == {metric} for each in ledger] == [False] * 14 + [True] * 8
    assert {len(each["scores"][metric]) for each in ledger[14:]} == {12}
    means = [np.mean(each["scores"][metric]) for each in ledger[14:]]
    order = sorted(range(8), key=lambda at: (means[at], at))
    fitness = [ledger[14 + at]["fitness"] for at in order]
    assert all(one <= other + 1e-12 for one, other in itertools.pairwise(fitness))
    kinds = {each["index"] < 14 for each in summary["validation"]["candidates"]}
    assert kinds == {True, False}
    for budget in (9, 16, 22):
        again = carried_out([*arguments, f"budget={budget}"], tmp_path / "runs" / "again")
    assert without_seconds(json_lines(tmp_path / "runs" / "again" / "ledger.jsonl")) == without_seconds(ledger)
    assert again["recipe_digest"] == summary["recipe_digest"]
    carried_out([*arguments, "budget=22", "executor=processes", "executor.workers=2"], tmp_path / "runs" / "two")
    assert without_seconds(json_lines(tmp_path / "runs" / "two" / "ledger.jsonl")) == without_seconds(ledger)


def test_the_display_says_what_it_shows_and_compares_no_log_likelihood_with_a_score() -> None:
    def record(index: int, fitness: float, scores: dict[str, list[float]]) -> Record:
        return Record(index, index, [0.5], {}, f"{index}", fitness, scores)

    written = StringIO()
    with SearchProgress(Console(file=written, width=200), 3, 0) as progress:
        progress(record(0, -0.25, {likelihood_name("sums", "token"): [-0.25]}))
        progress(record(1, -0.5, {likelihood_name("sums", "token"): [-0.5]}))
        progress(record(2, -3.0, {"sums": [-3.0]}))  # by a metric that is negative, too
    first, second, third = written.getvalue().splitlines()
    assert "best log-likelihood -0.2500, mean -0.2500" in first
    assert "best log-likelihood -0.2500, mean -0.5000" in second
    assert "best -3.0000, mean -3.0000" in third
