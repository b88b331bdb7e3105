"""`python -m evohydra` on tiny models: what it prints, what it leaves behind, and how it goes on."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from matplotlib.image import imread
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from evohydra.recipe import digest, from_dict
from evohydra.searching.ledger import LedgerError
from tests.commands import carried_out, evohydra, files, json_lines, python, workspace

TABLE = "strategies, by their winners' mean score on validation"
BUDGET = 14
SCORE = {"score", "low", "high", "n"}


@dataclass(frozen=True)
class Finished:
    """A run that has ended: its working directory, command line, process and run directory."""

    root: Path
    arguments: list[str]
    process: subprocess.CompletedProcess[str]
    directory: Path

    def copied(self, to: Path) -> Path:
        return Path(shutil.copytree(self.directory, to))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("finished")
    arguments = [*workspace(root), "start=[]"]  # so that the winner is none of the known merges
    process = evohydra(
        *arguments, f"budget={BUDGET}", "top=2", "run=first", "report=true", "audit=all", cwd=root, fresh=True
    )
    assert process.returncode == 0, process.stderr
    return Finished(root, arguments, process, root / "outputs" / "first")


def test_plain_progress_lines_where_there_is_no_terminal(finished: Finished):
    out = finished.process.stdout
    assert "\x1b" not in out
    assert "\r" not in out
    lines = re.findall(r"^generation +(\d+): (\d+)/14 genomes, best (\d\.\d+), mean \d\.\d+, ", out, re.MULTILINE)
    assert [(int(generation), int(done)) for generation, done, _ in lines] == [(0, 6), (1, 12), (2, 14)]
    fitness = [line["fitness"] for line in json_lines(finished.directory / "ledger.jsonl")]
    assert [float(best) for *_, best in lines] == [round(max(fitness[:n]), 4) for n in (6, 12, 14)]
    assert "Traceback" not in finished.process.stderr


def test_the_end_of_the_output_names_scores_and_files(finished: Finished):
    summary = json.loads((finished.directory / "summary.json").read_text())
    out = finished.process.stdout
    for name, score in {"winner": summary["test"]["winner"], **summary["test"]["sources"]}.items():
        assert re.search(rf"{name} +│ +{score['score']:.3f}", out)
    for name in ("winner", "recipe.json", "summary.json", "ledger.jsonl", "report.html"):
        assert (finished.directory / name).exists()
        assert f"  outputs/first/{name}: " in out  # as seen from where the command was given


def test_summary(finished: Finished):
    summary = json.loads((finished.directory / "summary.json").read_text())
    assert set(summary) == {
        "test", "validation", "search", "gain", "evaluations", "examples_scored", "tokens", "seconds", "data",
        "versions", "recipe_digest", "budget", "audit", "machine",
    }  # fmt: skip
    assert any("tenth of the examples" in said or "not told from none" in said for said in summary["audit"]["verdict"])
    test = summary["test"]
    assert set(test) == {"winner", "uniform", "sources", "base", "baselines"}
    assert set(test["sources"]) == {"one", "two"}
    assert set(test["baselines"]) == {"ties", "dare_ties"}
    assert "masks" not in test["baselines"]["ties"]
    masks = test["baselines"]["dare_ties"]["masks"]
    assert list(masks) == ["1", "2", "3"]  # of seed 1, and the next ones
    assert test["baselines"]["dare_ties"]["score"] == pytest.approx(np.mean([*masks.values()]))
    each = f"{min(masks.values()):.3f} to {max(masks.values()):.3f}"
    said = f"dare_ties drops entries at random: its score is the mean over 3 mask seeds, which give {each}."
    assert said in " ".join(finished.process.stdout.split())
    assert said in " ".join((finished.directory / "report.html").read_text().split())
    every = (test["winner"], test["uniform"], test["base"], *test["sources"].values(), *test["baselines"].values())
    for score in (*every, summary["validation"]["winner"], summary["search"]["winner"]):
        assert set(score) - {"masks"} == SCORE
        assert 0.0 <= score["low"] <= score["score"] <= score["high"] <= 1.0
    assert [summary[split]["winner"]["n"] for split in ("search", "validation")] == [24, 12]
    assert {score["n"] for score in every} == {24}
    assert set(summary["seconds"]) == {"merge", "evaluate", "other", "forward"}
    assert all(seconds > 0 for seconds in summary["seconds"].values())
    assert {"python", "evohydra", "torch", "transformers", "lm-eval"} <= set(summary["versions"])
    assert summary["evaluations"] == summary["budget"] == BUDGET


def test_summary_agrees_with_the_other_files(finished: Finished):
    summary = json.loads((finished.directory / "summary.json").read_text())
    ledger = json_lines(finished.directory / "ledger.jsonl")
    validated = [line for line in json_lines(finished.directory / "scores.jsonl") if line["split"] == "validation"]
    assert [line["copied"] for line in validated] == [False, False, True]  # top=2, and the winner is one of them
    assert summary["validation"]["winner"]["score"] == pytest.approx(
        max(np.mean(line["scores"]["lm_eval"]) for line in validated)
    )
    index = summary["search"]["index"]
    assert ledger[index]["recipe"] == summary["recipe_digest"]
    assert ledger[index]["fitness"] == pytest.approx(summary["search"]["winner"]["score"])
    assert summary["search"]["best"] == max(line["fitness"] for line in ledger)
    gain, test = summary["gain"], summary["test"]
    assert set(gain) == {"best_source", "difference", "low", "high", "p"}
    best = max(test["sources"], key=lambda name: test["sources"][name]["score"])
    assert gain["best_source"] == best
    assert gain["difference"] == pytest.approx(test["winner"]["score"] - test["sources"][best]["score"])
    assert gain["low"] <= gain["difference"] <= gain["high"]
    assert 0 < gain["p"] <= 1


def test_ledger(finished: Finished):
    lines = json_lines(finished.directory / "ledger.jsonl")
    assert [line["index"] for line in lines] == list(range(BUDGET))
    genes = [f"{g}/weight/{s}" for g in ("embeddings", "layers.0", "layers.1", "head") for s in ("one", "two")]
    for line in lines:
        assert list(line) == [
            "index", "generation", "genome", "genes", "recipe", "fitness", "scores", "seconds", "error", "tokens",
            "objectives", "examples", "scored", "error_bar", "note", "given_up", "limits",
        ]  # fmt: skip
        assert line["generation"] == line["index"] // 6
        assert list(line["genes"]) == genes
        # The range of every weight is [0, 1.5].
        assert list(line["genes"].values()) == pytest.approx([1.5 * coordinate for coordinate in line["genome"]])
        assert len(line["scores"]["lm_eval"]) == 24
        assert line["fitness"] == pytest.approx(sum(line["scores"]["lm_eval"]) / 24)
        assert set(line["seconds"]) == {"merge", "evaluate", "forward"}
        assert line["error"] is None
    assert len({line["recipe"] for line in lines}) == BUDGET
    assert len({line["fitness"] for line in lines}) > BUDGET // 2  # merging changes what the model answers


def test_figures_are_pictures(finished: Finished):
    drawn = {path.stem: path for path in (finished.directory / "figures").glob("*.png")}
    expected = {"fitness", "scores", "optimism", "genome", "population", "time", "workers"}
    assert expected == set(drawn)
    for path in drawn.values():
        picture = imread(path)  # (height, width, channel)
        assert min(picture.shape[:2]) > 100
        assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 10


def test_the_winner_is_the_merge_that_its_recipe_says(finished: Finished):
    winner = finished.directory / "winner"
    recipe = json.loads((winner / "recipe.json").read_text())
    assert recipe == json.loads((finished.directory / "recipe.json").read_text())
    node = recipe["recipe"]
    assert digest(from_dict(node)) == json.loads((finished.directory / "summary.json").read_text())["recipe_digest"]
    base, one, two = (load_file(finished.root / name / "model.safetensors") for name in ("base", "one", "two"))
    expected = {}
    for group in node["groups"]:
        first, second = group["parameters"]["weight"]
        for name in group["tensors"]:
            # Task arithmetic, arXiv 2212.04089, section 2: theta_0 + sum_k w_k (theta_k - theta_0).
            expected[name] = base[name] + first * (one[name] - base[name]) + second * (two[name] - base[name])
    assert expected.keys() == base.keys()
    loaded = AutoModelForCausalLM.from_pretrained(winner)
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)
    assert any(not torch.equal(expected[name], model[name]) for name in expected for model in (base, one, two))
    tokenizer = AutoTokenizer.from_pretrained(winner)
    tokens = tokenizer("1+1=", return_tensors="pt")["input_ids"]
    assert tokenizer.decode(tokens[0]).replace(" ", "") == "1+1="
    assert loaded.generate(tokens, max_new_tokens=2, do_sample=False).shape == (1, 6)


def test_the_card_and_mergekits_configuration(finished: Finished):
    winner = finished.directory / "winner"
    groups = json.loads((winner / "recipe.json").read_text())["recipe"]["groups"]
    config = yaml.safe_load((winner / "mergekit.yaml").read_text())
    assert config["merge_method"] == "task_arithmetic"
    assert config["base_model"] == str(finished.root / "base")
    weights = {group["name"]: group["parameters"]["weight"] for group in groups}
    assert [piece["sources"][0]["layer_range"] for piece in config["slices"]] == [[0, 1], [1, 2]]
    for layer, piece in enumerate(config["slices"]):
        sources = {source["model"]: source for source in piece["sources"]}
        for position, model in enumerate(("one", "two")):
            weight = sources[str(finished.root / model)]["parameters"]["weight"]
            numbers = {each["value"] if isinstance(each, dict) else each for each in weight}
            assert numbers == {weights[name][position] for name in ("embeddings", f"layers.{layer}", "head")}
    card = (winner / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "transformers"
    assert str(finished.root / "two") in card


def test_the_same_command_again_evaluates_nothing_and_changes_nothing(finished: Finished, tmp_path: Path):
    copy = finished.copied(tmp_path / "outputs" / "first")
    again = evohydra(*finished.arguments, f"budget={BUDGET}", "top=2", "run=first", "audit=all", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "from the ledger" in again.stdout
    for name in ("ledger.jsonl", "scores.jsonl", "recipe.json", "run.json"):
        assert (copy / name).read_bytes() == (finished.directory / name).read_bytes()
    assert files(copy / "winner") == files(finished.directory / "winner")
    assert not (copy / "wandb").exists()  # tracker=none
    before, now = (json.loads((d / "summary.json").read_text()) for d in (finished.directory, copy))
    for summary in (before, now):
        del summary["seconds"]["other"]
    assert now == before


def test_a_larger_budget_goes_on(finished: Finished, tmp_path: Path):
    copy = finished.copied(tmp_path / "first")
    old = (copy / "ledger.jsonl").read_bytes()
    summary = carried_out([*finished.arguments, "budget=20", "top=2"], copy)
    assert summary["evaluations"] == 20
    assert (copy / "ledger.jsonl").read_bytes().startswith(old)
    fresh = carried_out([*finished.arguments, "budget=20", "top=2"], tmp_path / "fresh")
    assert fresh["recipe_digest"] == summary["recipe_digest"]
    recipes = [[line["recipe"] for line in json_lines(run / "ledger.jsonl")] for run in (copy, tmp_path / "fresh")]
    assert recipes[0] == recipes[1]


def test_another_seed_in_the_same_directory_is_refused(finished: Finished, tmp_path: Path):
    copy = finished.copied(tmp_path / "first")
    before = files(copy)
    with pytest.raises(LedgerError, match=r"seed was 1, is now 2.*run=NAME"):
        carried_out([*finished.arguments, "budget=20", "seed=2"], copy)
    assert files(copy) == before


def test_a_run_without_a_name_is_called_by_its_time(finished: Finished, tmp_path: Path):
    process = evohydra(*finished.arguments, "budget=6", "top=1", "baselines=null", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    (run,) = (tmp_path / "outputs").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}", run.name)
    assert len(json_lines(run / "ledger.jsonl")) == 6


def test_a_multirun_gives_a_directory_for_each_job_and_one_table(finished: Finished, tmp_path: Path):
    sweep = ("optimizer=cmaes,de,random", "seed=1,2", "run=sweep", "budget=6", "top=1", "baselines=null")
    process = evohydra("-m", *finished.arguments, *sweep, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    jobs = sorted(path for path in (tmp_path / "outputs" / "sweep").iterdir() if path.is_dir())
    assert not (tmp_path / "outputs" / "sweep" / "report.html").exists()  # report=false
    assert [job.name for job in jobs] == list("012345")
    assert [len(json_lines(job / "ledger.jsonl")) for job in jobs] == [6] * 6
    assert process.stdout.count(TABLE) == 1
    assert "test split: score and 95 % interval" not in process.stdout  # no table of a job's own
    assert re.search(r"^cmaes seed=1: validation [\d.]+, test [\d.]+, 6 genomes; ", process.stdout, re.MULTILINE)
    assert "All runs have the same examples in each split." in process.stdout
    assert "Sources, base and merges without a search were scored once for all runs." in process.stdout
    table = process.stdout.split(TABLE)[1]
    rows = re.findall(r"^│ (\w+) +│ +2 │ +[\d.]+ │ +([\d.]+) │ +([\d.]+) │", table, re.MULTILINE)
    assert {row[0] for row in rows} == {"cmaes", "de", "random"}
    for at, (strategy, *told) in enumerate(rows):
        pair = [0, 1] if strategy == "cmaes" else [2, 3] if strategy == "de" else [4, 5]
        found = [json.loads((tmp_path / f"outputs/sweep/{job}/summary.json").read_text()) for job in pair]
        for split, number in zip(("validation", "test"), told, strict=True):
            assert number == f"{np.mean([each[split]['winner']['score'] for each in found]):.3f}"
        assert at == 0 or told[0] <= rows[at - 1][1]  # best on validation first
    (jobs[3] / "summary.json").unlink()
    later = python("-m", "evohydra.report.comparison", tmp_path / "outputs" / "sweep", cwd=tmp_path)
    assert later.returncode == 0
    assert re.search(r"^│ de +│ +1 │", later.stdout, re.MULTILINE)
    assert re.search(r"^  run 3 \(optimizer=de seed=2\): ended early", later.stdout, re.MULTILINE)
    nowhere = python("-m", "evohydra.report.comparison", tmp_path / "nowhere", cwd=tmp_path)
    assert nowhere.returncode != 0
    assert "usage" in nowhere.stderr


def test_help_and_cfg(tmp_path: Path):
    shown = evohydra("--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert "python -m evohydra run=NAME" in shown.stdout
    assert "task_arithmetic" in shown.stdout
    composed = evohydra("--cfg", "job", "merge=ties", "budget=7", cwd=tmp_path)
    assert composed.returncode == 0
    config = yaml.safe_load(composed.stdout)
    assert (config["budget"], config["merge"]["parameter"]["method"]) == (7, "ties")
    assert not list(tmp_path.iterdir())


def test_relative_paths_mean_the_same_with_chdir_and_swept_values_may_be_long(tmp_path: Path):
    arguments = [each.replace(f"={tmp_path}/", "=") for each in workspace(tmp_path)]
    assert "model.sources.one.path=one" in arguments
    long = [letter * 250 for letter in "ab"]
    own = ("hydra.job.chdir=true", f"+note={','.join(long)}", "run=sweep", "merge=linear", "budget=6", "baselines=null")
    process = evohydra("-m", *arguments, *own, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stdout + process.stderr
    assert f"paths are those of {tmp_path}, where the command was given" in process.stdout + process.stderr
    for job in "01":
        assert (tmp_path / "outputs" / "sweep" / job / "summary.json").exists()
    assert len(re.findall(r"^│ [ab]{36}\.\.\. +│ +1 │", process.stdout, re.MULTILINE)) == 2
