"""Reports: what they say of runs that have ended or not, and what a real browser makes of their page."""

import csv
import functools
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from evohydra.report.__main__ import main
from evohydra.report.blocks import FigureBlock
from evohydra.report.comparison import compare
from evohydra.report.contents import best_job, verdict
from evohydra.report.gathering import gather, strategies
from evohydra.report.gene_blocks import gene_blocks
from evohydra.report.importance import Genes, importance
from evohydra.report.naming import strategy_of
from evohydra.report.paired_tests import strategies_against_each_other, winner_against_others
from evohydra.report.score_figures import finished, held_out
from evohydra.report.search_figures import best_so_far, examples_each, fitness_figure, population_figure, spent
from evohydra.report.style import looking
from evohydra.report.tables import p_value, score_sentence, unsearched_sentence
from evohydra.report.writing import write_report
from evohydra.searching.json_lines import alone_in
from tests.browser import BROWSER, Page, open_browser
from tests.commands import python
from tests.saved_runs import NAMES, save_run, save_sweep

FIGURES = {"fitness", "scores", "optimism", "importance", "population", "time"}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = save_sweep(tmp_path_factory.mktemp("reports") / "sweep")
    for file in root.glob("*/summary.json"):
        audit = {"verdict": ["The gain holds."], "at_the_limit": {}}
        file.write_text(json.dumps({**json.loads(file.read_text()), "audit": audit}))
    write_report([root / "0"], root / "0")
    write_report([root], root)
    return root


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if BROWSER is None:
        pytest.skip("there is no Chromium here")
    with open_browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.mark.parametrize(("run", "scheme", "width"), [
    ("", "light", 1100), ("", "dark", 1100), ("", "light", 360), ("0", "dark", 360),
])  # fmt: skip
def test_a_browser_draws_the_page(sweep: Path, browser: Page, run: str, scheme: str, width: int) -> None:
    browser.open(sweep / run / "report.html", width=width, scheme=scheme)
    assert browser.complaints == []
    assert {address.split(":")[0] for address in browser.requests} <= {"file", "data"}
    assert [address for address in browser.requests if address.startswith("file:")] == [
        (sweep / run / "report.html").as_uri()
    ]
    boxes = browser.value("[...document.querySelectorAll('svg')].map(e => [e.getBBox().width, e.getBBox().height])")
    assert len(boxes) >= 7
    assert min(map(min, boxes)) > 20
    assert browser.value("document.documentElement.scrollWidth") <= width  # tables scroll in their own boxes
    smallest = "Math.min(...[...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect().height))"
    assert browser.value(smallest) >= 7
    picture = np.array(Image.open(io.BytesIO(browser.screenshot())).convert("L"))
    assert picture.shape[1] == width
    paper = np.median(picture)
    assert paper > 240 if scheme == "light" else paper < 40
    assert 0.02 < (np.abs(picture - paper) > 40).mean() < 0.6


def test_labels_do_not_lie_on_each_other(sweep: Path, browser: Page) -> None:
    browser.open(sweep / "report.html", width=1100, scheme="light")
    overlapping = """[...document.querySelectorAll('svg')].flatMap(svg => {
        const boxes = [...svg.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
        return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([b, q]) =>
            Math.min(p.right, q.right) - Math.max(p.left, q.left) > 3 &&
            Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 3).map(([b]) => [a.trim(), b.trim()]));
    })"""
    slanted = {"ja", "math"}  # their boxes are larger than they are
    assert [pair for pair in browser.value(overlapping) if not set(pair) <= slanted] == []


def test_the_page_says_what_has_ended_and_what_has_not(sweep: Path) -> None:
    text = (sweep / "report.html").read_text()
    assert "8 of 10 runs have ended" in text
    assert "Run 8 (optimizer=random seed=3): ended early, 11 of 40 genomes." in text
    assert "Run 9 (optimizer=random seed=4): ended early, 0 of 40 genomes." in text
    assert "Best on the test split is cmaes" in text
    assert "Whether it is better than de, random is not settled by these runs." in text
    assert "りんごが&lt;3&gt;個" in text
    assert "✓ 3です" in text
    assert '<a href="0/report.html">0</a>' in text
    assert "http" not in text
    single = (sweep / "0" / "report.html").read_text()
    assert "The winner scores +0.200 against the best source" in single


def test_what_settles_a_comparison_is_several_seeds(tmp_path: Path) -> None:
    runs = [save_run(tmp_path / f"{name}{seed}", name, seed, 0.0, reach=reach)
            for name, reach in (("good", 1.0), ("bad", 0.1)) for seed in (1, 2, 3)]  # fmt: skip
    said = list(verdict(gather(runs)))
    assert any("That it is better than bad is settled at the 5 % level" in sentence for sentence in said)
    assert said[-1].startswith(
        "Tests made on the test split: 1 of strategies (runs of the same seed and examples paired"
    )
    alone = list(verdict(gather([runs[0], runs[3]])))
    assert "Whether it is better than bad is not settled by these runs." in alone
    assert alone[-1].startswith(
        "Tests made on the test split: 1 of two winners (examples paired, sign flips, two-sided);"
    )


def test_a_sweep_with_too_few_seeds_says_how_many_it_takes(sweep: Path) -> None:
    said = list(verdict(gather([sweep])))
    assert sum("2 runs are too few for an interval of random: some 13 runs would give one of" in each for each in said)
    assert any("seeds would show a difference of 0.058 to random" in each for each in said)
    assert "corrected for 3 tests (Holm 1979)" in said[-1]
    for _, score, _ in held_out(gather([sweep])):
        assert 0 <= score["low"] <= score["score"] <= score["high"] <= 1


def test_figures_lie_beside_the_page(sweep: Path) -> None:
    drawn = {path.stem for path in (sweep / "figures").iterdir()}
    assert drawn == FIGURES | {"genome_cmaes", "genome_de", "genome_random"}
    assert {path.stem for path in (sweep / "0" / "figures").iterdir()} == FIGURES | {"genome"}


def test_each_figure_comes_with_its_numbers(sweep: Path) -> None:
    for place in (sweep, sweep / "0"):
        pictures, numbers = ({p.stem for p in (place / "figures").glob(f"*.{kind}")} for kind in ("png", "csv"))
        assert pictures == numbers
    run = table(sweep / "0" / "figures" / "fitness.csv")
    (job,) = gather([sweep / "0"])
    assert [line["genome"] for line in run] == [str(at) for at in range(40)]
    assert [float(line["best so far"]) for line in run] == best_so_far(job).tolist()
    assert run[3]["fitness"] == ""  # it failed
    winners = {line["model"]: line for line in table(sweep / "0" / "figures" / "scores.csv")}
    assert job.summary
    assert float(winners["winner"]["score"]) == job.summary["test"]["winner"]["score"]
    last = {line["strategy"]: float(line["median"]) for line in table(sweep / "figures" / "fitness.csv")}
    best = [best_so_far(job)[-1] for job in gather([sweep]) if job.summary and job.strategy == "cmaes"]
    assert last["cmaes"] == np.median(best)
    assert len(table(sweep / "figures" / "genome_cmaes.csv")) == 8


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_figures_for_a_paper(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(sweep), "--figures", str(tmp_path / "paper"), "--style", "paper"])
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(written) == sorted((tmp_path / "paper").iterdir())
    of_report = {path.stem for path in (sweep / "figures").iterdir()}
    for kind in ("svg", "pdf", "csv"):
        assert {path.stem for path in written if path.suffix == f".{kind}"} == of_report
    fitness = (tmp_path / "paper" / "fitness.svg").read_text()
    assert 'width="241.2pt"' in fitness  # 3.35 inches
    assert ">best fitness so far</text>" in fitness  # letters are text
    assert {"cmaes (3 runs)", "de (3 runs)"} <= set(re.findall(r">([^<>]+)</text>", fitness))
    assert len(set(re.findall("stroke-dasharray: [0-9., ]+", fitness))) >= 2
    pdf = (tmp_path / "paper" / "fitness.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/Type3" not in pdf
    assert (tmp_path / "paper" / "fitness.csv").read_bytes() == (sweep / "figures" / "fitness.csv").read_bytes()
    first = {path.name: path.read_bytes() for path in written}
    main([str(sweep), "--figures", str(tmp_path / "paper"), "--style", "paper"])
    assert {path.name: path.read_bytes() for path in written} == first


def test_a_style_belongs_to_figures(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["--style", "paper"], "--style is that of --figures DIR"),
        (["--figures", "x", "--serve"], "--figures DIR writes figures alone"),
    ):
        with pytest.raises(SystemExit):
            main([str(sweep), *arguments])
        assert said in capsys.readouterr().err


def test_fitness_against_examples_is_drawn_where_genomes_do_not_cost_the_same(sweep: Path, tmp_path: Path) -> None:
    equal = [job for job in gather([sweep]) if job.records]
    assert examples_each(equal) == pytest.approx(60, rel=0.05)  # one genome in 40 has failed
    other = save_run(tmp_path / "run", "de", 1, 0.1)
    records = [json.loads(line) for line in (other / "ledger.jsonl").read_text().splitlines()[:-1]]
    for record in records[20:]:  # a race that has become shorter
        record["scored"] = 20
    (other / "ledger.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert examples_each(gather([other])) is None
    assert "fitness_by_examples" in write_report([other], other)
    for record in records:  # all its genomes cost the same, but not the same as those of the others
        record["scored"] = 20
    (other / "ledger.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert examples_each(gather([other])) == 20
    assert examples_each([*equal, *gather([other])]) is None


def test_a_run_in_progress_and_one_with_nothing(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", "de", 1, 0.1, genomes=12, ended=False)
    with alone_in(run):  # as a search is
        assert gather([run])[0].state == "running, 12 of 40 genomes"
    assert gather([run])[0].state == "ended early, 12 of 40 genomes"
    (run / "evohydra.log").write_text("the run ended with an error\nTraceback\n  x\nOSError: no space left\n")
    written = write_report([run], run)
    assert set(written) == {"fitness", "population", "report"}
    assert "ended early, 12 of 40 genomes; OSError: no space left." in written["report"].read_text()
    empty = save_run(tmp_path / "empty", "de", 1, 0.1, genomes=0, ended=False)
    assert set(write_report([empty], empty)) == {"report"}
    with pytest.raises(ValueError, match="no runs found"):
        write_report([tmp_path / "run" / "figures"], tmp_path)


@pytest.mark.parametrize("told", [True, False])  # whether the summary holds its budget, as it does since this version
@pytest.mark.parametrize("genomes", [40, 41, 60])
def test_a_run_that_goes_on_with_a_larger_budget_is_not_finished(tmp_path: Path, told: bool, genomes: int) -> None:
    """What it has is shown, and nothing of its earlier end: also where it was killed after the search."""
    run = save_run(tmp_path / "run", "de", 1, 0.1)
    if told:
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps(summary | {"budget": 40}))
    assert gather([run])[0].state == "finished"
    config = run / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("budget: 40", "budget: 60"))
    lines = (run / "ledger.jsonl").read_text().splitlines()[:40]
    more = [json.dumps(json.loads(lines[-1]) | {"index": index}) for index in range(40, genomes)]
    (run / "ledger.jsonl").write_text("".join(f"{line}\n" for line in [*lines, *more]))
    (job,) = gather([run])
    if genomes == 40 and not told:  # a strategy may have ended before its budget
        assert job.state == "finished"
        return
    progress = f"{genomes} of 60 genomes (it goes on from an earlier end at 40)"
    assert job.state == f"ended early, {progress}"
    assert (job.summary, job.recipe, job.final("test")) == (None, None, None)
    with alone_in(run):
        assert gather([run])[0].state == f"running, {progress}"
        written = write_report([run], run)
    assert set(written) == {"fitness", "population", "importance", "report"}
    page = written["report"].read_text()
    assert f"running, {progress}" in page
    assert "best source" not in page
    out = io.StringIO()
    assert compare([run], Console(file=out, width=300)) == 1
    assert progress in out.getvalue()


def test_a_strategy_that_ends_before_its_budget_is_finished(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", "grid", 1, 0.1, genomes=30)
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"budget": 40}))
    with alone_in(run):  # which writes its own report
        assert gather([run])[0].state == "finished"


def test_the_audit_says_of_which_run_it_is(sweep: Path) -> None:
    best = best_job(gather([sweep]))
    assert best is not None
    assert f"The audit of the winner of run {best.name}, the best on validation" in (sweep / "report.html").read_text()
    alone = (sweep / "0" / "report.html").read_text()
    assert "The audit of the winner<" in alone
    assert ">against<" in alone  # a winner may be the lower one
    assert (p_value(0.0), p_value(0.00012)) == ("< 0.0001", "0.0001")


def test_scores_that_are_no_numbers_are_none(tmp_path: Path) -> None:
    """As earlier versions wrote them for a model of NaNs."""
    run = save_run(tmp_path / "run", "de", 1, 0.1)
    finals = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
    for final in finals:
        if final["label"] == "ja":
            final["scores"]["sums"][7] = float("nan")
    (run / "scores.jsonl").write_text("".join(json.dumps(final) + "\n" for final in finals))
    (job,) = gather([run])
    assert job.final("test", "ja") is None
    assert job.final("test", "math") is not None
    assert "nan" not in " ".join(str(pair) for pair in winner_against_others(job))


def test_strategies_are_what_differs_but_the_seed(sweep: Path, tmp_path: Path) -> None:
    jobs = gather([sweep])
    assert {name: len(members) for name, members in strategies(jobs).items()} == {"cmaes": 3, "de": 3, "random": 4}
    assert [job.seed for job in jobs] == [1, 2, 3] * 3 + [4]
    assert strategy_of(["merge=ties+dfs", "optimizer.population=20", "budget=9", "seed=3", "tracker=none"]) == (
        "ties+dfs population=20 budget=9"
    )
    secret = save_run(tmp_path / "a", "de", 1, 0.1, ended=False)
    (secret / ".hydra" / "overrides.yaml").write_text('["+api_token=hush", "tokenizer=union", "+n={password: hush}"]')
    other = save_run(tmp_path / "b", "de", 1, 0.1, ended=False)
    assert gather([secret, other])[0].overrides == ("tokenizer=union", "+n={password: (not shown)}")


def test_curves_are_the_best_so_far(sweep: Path) -> None:
    (job,) = gather([sweep / "0"])
    best, expected = best_so_far(job), -np.inf
    for at, record in enumerate(job.records):
        expected = max(expected, record.fitness if record.fitness is not None else -np.inf)
        assert best[at] == expected
    assert spent(job, "evaluations").tolist() == list(range(1, 41))
    assert spent(job, "examples")[-1] == 39 * 60  # one genome failed
    jobs = [job for job in gather([sweep]) if job.summary]
    (axes,) = fitness_figure(jobs, "evaluations").axes
    medians = {str(line.get_label()): line.get_ydata()[-1] for line in axes.lines}
    last = [best_so_far(job)[-1] for job in jobs if job.strategy == "cmaes"]
    assert medians["cmaes (3 runs)"] == np.median(last)


def test_pairs_of_strategies(sweep: Path) -> None:
    pairs = strategies_against_each_other(gather([sweep]))
    assert {frozenset((pair.better, pair.other)) for pair in pairs} == {
        frozenset(names) for names in (("cmaes", "de"), ("cmaes", "random"), ("de", "random"))
    }
    for pair in pairs:
        assert pair.gain.difference >= 0
        assert pair.gain.low <= pair.gain.difference <= pair.gain.high
        assert pair.pairs == (2 if "random" in (pair.better, pair.other) else 3)  # a seed of random has not ended
        assert pair.gain.p <= pair.holm <= 3 * pair.gain.p
    assert [pair.other for pair in winner_against_others(gather([sweep / "0"])[0])] == [
        "source ja", "source math", "uniform merge",
    ]  # fmt: skip


def test_the_best_run_is_chosen_on_validation(sweep: Path, tmp_path: Path) -> None:
    jobs = gather([sweep])
    best = best_job(jobs)
    assert best is not None
    scores = {job.name: (job.summary or {})["validation"]["winner"]["score"] for job in finished(jobs)}
    assert scores[best.name] == max(scores.values())
    assert best_job(gather([save_run(tmp_path / "a", "de", 1, 0.1, ended=False)])) is None


def pairs_of(records: list[dict[str, Any]]) -> list[tuple[float, Genes]]:
    return [(record["fitness"], functools.partial(record.get, "genes")) for record in records]


def test_importance_finds_the_gene_that_matters(sweep: Path) -> None:
    records = [record for job in gather([sweep]) for record in job.lines if record["fitness"] is not None]
    found = importance(pairs_of(records))
    assert found is not None
    assert found.genes[0] == NAMES[0]
    assert found.mean[0] > 5 * found.mean[1]
    assert found.r2 > 0.5
    order = np.random.default_rng(0).permutation(len(records))
    shuffled = [r | {"fitness": records[at]["fitness"]} for r, at in zip(records, order, strict=True)]
    nothing = importance(pairs_of(shuffled))
    assert nothing is not None
    assert nothing.r2 < 0.1  # and then the report shows no order
    assert importance(pairs_of(records[:20])) is None
    words = [r | {"genes": {**r["genes"], "merge/kind": "ab"[r["index"] % 2]}} for r in records]
    lacking = [r | {"genes": {k: v for k, v in r["genes"].items() if k != NAMES[2]}} for r in words[:50]] + words[50:]
    assert importance(pairs_of(lacking)).genes[0] == NAMES[0]  # type: ignore[union-attr]


def test_genomes_of_different_spaces_are_not_drawn_on_one_map(sweep: Path) -> None:
    jobs = gather([sweep])
    assert population_figure(jobs) is not None
    longer = replace(jobs[0].records[0], dimension=9)
    other = replace(jobs[0], records=[longer, *jobs[0].records[1:]])
    assert population_figure([other, *jobs[1:]]) is None


def test_the_command(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(sweep / "0"), str(sweep / "3"), "--to", str(tmp_path / "both")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "both" / "report.html")
    assert re.search("2 of 2 runs", (tmp_path / "both" / "report.html").read_text())
    for arguments, said in (((sweep / "nowhere",), "no such directory"), ((sweep, sweep / "0"), "need --to")):
        with pytest.raises(SystemExit):
            main([str(argument) for argument in arguments])
        assert said in capsys.readouterr().err
    empty = python("-m", "evohydra.report", sweep / "figures", cwd=tmp_path)
    assert empty.returncode == 1
    assert "evohydra: no runs found in" in empty.stderr


def drawn_of(run: Path) -> set[str]:
    with looking("screen"):
        return {block.name for block in gene_blocks(gather([run])) if isinstance(block, FigureBlock)}


def test_ablations_are_drawn(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", "de", 1, 0.1)
    ablations = [{"name": name, "difference": 0.1, "low": 0.0, "high": 0.2, "p": 0.1} for name in NAMES]
    (run / "ablations.json").write_text(json.dumps({"recipe": "of an earlier winner", "ablations": ablations}))
    assert "ablations" not in drawn_of(run)
    digest = json.loads((run / "summary.json").read_text())["recipe_digest"]
    (run / "ablations.json").write_text(json.dumps({"recipe": digest, "ablations": ablations}))
    assert "ablations" in drawn_of(run)


def test_the_score_stands_beside_the_best_of_all_that_it_is_compared_with() -> None:
    winner = {"score": 0.4, "low": 0.3, "high": 0.5}
    test: Any = {"sources": {"a": {"score": 0.1}, "b": {"score": None}}, "base": {"score": 0.45}, "uniform": None,
                 "baselines": {"ties": {"score": 0.2}}, "winner": winner}  # fmt: skip
    assert score_sentence(test) == (
        "The winner scores 0.400 on the test split (95 % 0.300 to 0.500). The best of all that it is compared with is "
        "base with 0.450."
    )
    assert "is ties at its defaults with 0.200" in (score_sentence({**test, "base": None}) or "")
    assert score_sentence({**test, "winner": {"score": None}}) is None


def test_models_that_all_score_the_same_are_said_to_tell_nothing() -> None:
    nothing, something = {"score": 0.0}, {"score": 0.2}
    test: Any = {"sources": {"a": nothing}, "base": None, "uniform": nothing, "baselines": None, "winner": nothing}
    assert "All models score 0.000 on the test split, which tells nothing" in (unsearched_sentence(test) or "")
    assert unsearched_sentence({**test, "winner": something}) is None
    assert unsearched_sentence({**test, "uniform": something, "winner": something}) == (
        "As good without this search: the uniform merge (0.200)."
    )
    better = {**test, "base": {"score": 0.3}, "uniform": something, "winner": something}
    assert unsearched_sentence(better) == (
        "Better without this search: the base (0.300). As good without this search: the uniform merge (0.200)."
    )
    right = {"score": 1.0}
    perfect = unsearched_sentence({**test, "sources": {"a": right}, "uniform": right, "winner": right})
    assert (perfect or "").endswith("The benchmark is too easy for them.")
