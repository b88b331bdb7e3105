"""Trackers: what a W&B run file really holds, read back offline, and that no tracker stops a search."""

import json
import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from evohydra.searching.masking import without_secrets
from evohydra.trackers.wandb import run_id
from tests.commands import carried_out, environment, evohydra, files, json_lines, workspace

SECRET = "hush-4711"


@dataclass(frozen=True)
class Job:
    """A job of a multirun and the records of its W&B run file, by type."""

    directory: Path
    records: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def ledger(self) -> list[dict[str, Any]]:
        return json_lines(self.directory / "ledger.jsonl")

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [entry["item"] for entry in self.of("history") if "index" in entry["item"]]

    def logged_file(self, key: str) -> bytes:
        """What was logged once under `key`: a table or a picture."""
        (path,) = [e["item"][f"{key}.path"] for e in self.of("history") if f"{key}.path" in e["item"]]
        (run,) = (self.directory / "wandb").glob("offline-run-*")
        content: bytes = (run / "files" / path).read_bytes()
        return content


def read_back(directory: Path) -> list[dict[str, Any]]:
    """The records of the one W&B run in a run directory, by wandb's own reader."""
    (run,) = (directory / "wandb").glob("offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(), timeout=120)
    return [json.loads(line) for line in shown.stdout.splitlines()]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> list[Job]:
    root = tmp_path_factory.mktemp("tracked")
    arguments = workspace(root)
    (root / "conf" / "mine").mkdir()
    secrets = f"# @package _global_\napi_token: {SECRET}\nnested: {{password: {SECRET}}}\n"
    (root / "conf" / "mine" / "known.yaml").write_text(secrets)
    process = evohydra(
        "-m", *arguments, "tracker=wandb", "report=true", "optimizer=de,random", "run=sweep", "budget=8",
        "top=1", "start=[]",
        "baselines=null",
        "+mine=known",
        cwd=root, HOME=str(root), NETRC=str(root / "none"), MPLCONFIGDIR=matplotlib.get_cachedir(),
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    directories = [root / "outputs" / "sweep" / number for number in "01"]
    return [Job(directory, read_back(directory)) for directory in directories]


def test_every_genome_of_the_ledger_is_a_row(jobs: list[Job]):
    for job in jobs:
        assert len(job.ledger) == len(job.rows) == 8
        best = -1.0
        for line, row in zip(job.ledger, job.rows, strict=True):
            best = max(best, line["fitness"])
            assert {key: row[key] for key in ("_step", "index", "generation", "recipe")} == {
                "_step": line["index"], **{key: line[key] for key in ("index", "generation", "recipe")},
            }  # fmt: skip
            assert row["fitness"] == line["fitness"]
            assert row["best"] == best
            assert row["score/lm_eval"] == pytest.approx(line["fitness"])
            genes = {k.removeprefix("gene/"): value for k, value in row.items() if k.startswith("gene/")}
            assert genes == line["genes"]
            assert len(genes) == 8
            seconds = {k.removeprefix("seconds/"): value for k, value in row.items() if k.startswith("seconds/")}
            assert seconds == line["seconds"]


def test_the_table_and_the_figures(jobs: list[Job]):
    for job in jobs:
        table = json.loads(job.logged_file("genomes"))
        assert table["columns"] == ["index", "generation", "fitness", "error", *job.ledger[0]["genes"]]
        assert table["data"] == [
            [line["index"], line["generation"], line["fitness"], None, *line["genes"].values()] for line in job.ledger
        ]
        for name in ("fitness", "genome"):
            assert job.logged_file(f"figure/{name}") == (job.directory / "figures" / f"{name}.png").read_bytes()


def test_the_table_of_workers(jobs: list[Job]):
    """What is in workers.jsonl, added up: one worker, which scored genomes, sources and models at the end."""
    for job in jobs:
        table = json.loads(job.logged_file("workers"))
        assert table["columns"] == ["worker", "jobs", "seconds merging", "seconds scoring", "seconds waiting", "deaths"]
        lines = [json.loads(line) for line in (job.directory / "workers.jsonl").read_text().splitlines()]
        turns = [line for line in lines if "worker" in line]
        (row,) = table["data"]
        assert [row[0], row[1], row[5]] == [0, len(turns), 0]
        assert row[1] >= 8
        assert row[2] == pytest.approx(sum(turn["merge"] for turn in turns))
        assert row[3] == pytest.approx(sum(turn["score"] for turn in turns))
        whole = max(turn["ended"] for turn in turns) - min(turn["began"] for turn in turns)
        assert row[4] == pytest.approx(max(0.0, whole - row[2] - row[3]))


def test_the_summary(jobs: list[Job]):
    for job in jobs:
        logged: dict[str, Any] = {}
        for record in job.of("summary"):
            logged |= record.get("update", {})
        summary = json.loads((job.directory / "summary.json").read_text())
        for part in ("test", "validation", "search", "gain", "seconds"):
            assert logged[part] == summary[part]


def test_the_winner_is_an_artifact(jobs: list[Job]):
    for job in jobs:
        (artifact,) = (each for each in job.of("artifact") if each["name"].startswith("winner-"))
        assert artifact["type"] == "model"
        metadata = json.loads(artifact["metadata"])
        assert metadata["recipe"] == json.loads((job.directory / "summary.json").read_text())["recipe_digest"]
        assert metadata["versions"]["evohydra"]
        entries = {entry["path"]: entry for entry in artifact["manifest"]["contents"]}
        winner = job.directory / "winner"
        assert set(entries) == set(files(winner))
        assert {"model.safetensors", "recipe.json", "README.md", "config.json"} <= set(entries)
        for name, entry in entries.items():
            assert int(entry["size"]) == (winner / name).stat().st_size
        assert entries["model.safetensors"]["ref"] == (winner / "model.safetensors").as_uri()  # offline: not copied


def test_sources_and_data_are_artifacts_that_the_run_has_used(jobs: list[Job]):
    for job in jobs:
        used = {each["name"]: each for each in job.of("artifact") if each.get("use_after_commit")}
        assert set(used) == {"source-base", "source-one", "source-two", "data-lm_eval"}
        assert {each["type"] for each in used.values()} == {"model", "dataset"}
        for name in ("base", "one", "two"):
            source = used[f"source-{name}"]
            recipe = json.loads((job.directory / "recipe.json").read_text())["recipe"]
            (node,) = (each for each in (recipe["base"], *recipe["models"]) if each["name"] == name)
            assert json.loads(source["metadata"])["fingerprint"] == node["fingerprint"]
            files_referred_to = {entry["ref"] for entry in source["manifest"]["contents"]}
            assert (Path(node["path"]) / "model.safetensors").as_uri() in files_referred_to  # not copied
        summary = json.loads((job.directory / "summary.json").read_text())
        assert json.loads(used["data-lm_eval"]["metadata"]) == summary["data"]["lm_eval"]


def test_a_run_that_goes_on_keeps_its_id(tmp_path: Path):
    first = run_id(tmp_path, new=True)
    assert run_id(tmp_path, new=True) == first
    assert run_id(tmp_path / "other", new=False) is None
    assert run_id(tmp_path / "other", new=True) != first


def test_the_configuration_is_there_without_secrets(jobs: list[Job]):
    for job in jobs:
        (run,) = job.of("run")
        config = run["config"]["update"]
        assert (config["seed"], config["budget"]) == (1, 8)
        assert config["code"]["evohydra"]
        assert config["merge"]["parameter"]["method"].endswith("task_arithmetic")
        assert config["api_token"] == "(not shown)"
        assert config["nested"] == {"password": "(not shown)"}
        assert config["command"][0] == "evohydra"
        assert {"tracker=wandb", "budget=8"} <= set(config["command"])
    for name, content in files(jobs[0].directory.parent).items():  # what Hydra writes by itself too
        assert SECRET.encode() not in content, name


def test_jobs_of_a_multirun_are_finished_runs_of_one_group(jobs: list[Job]):
    runs = [job.of("run")[0] for job in jobs]
    assert {run["run_group"] for run in runs} == {"sweep"}
    assert len({run["run_id"] for run in runs}) == 2
    assert [run["display_name"] for run in runs] == ["de seed=1", "random seed=1"]
    assert [run["job_type"] for run in runs] == ["de", "random"]
    assert [run["tags"] for run in runs] == [["optimizer=de"], ["optimizer=random"]]
    for job in jobs:
        (end,) = job.of("exit")
        assert end.get("exit_code", 0) == 0


def test_secrets_are_blotted_out_wherever_they_are():
    config = {"a": [{"HF_TOKEN": "x", "tokenizer": "base"}], "wandb_api_key": "y", "b": {"password": None}, "n": 3}
    shown = without_secrets(config)
    assert shown["a"][0]["HF_TOKEN"] == shown["wandb_api_key"] == "(not shown)"
    assert shown["b"] == {"password": None}
    assert shown["n"] == 3
    assert config["wandb_api_key"] == "y"


@pytest.mark.parametrize("at", ["init", "genome", "finish", "close", "never"])
def test_a_tracker_that_raises_stops_nothing(at: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    arguments = workspace(tmp_path)
    group = tmp_path / "conf" / "tracker"
    group.mkdir()
    (group / "broken.yaml").write_text(f"_target_: tests.fakes.RaisingTracker\n_partial_: true\nat: {at}\n")
    arguments[arguments.index("tracker=none")] = "tracker=broken"
    with caplog.at_level(logging.WARNING):
        summary = carried_out([*arguments, "budget=6", "top=1", "baselines=null"], tmp_path / "run")
    assert summary["evaluations"] == len(json_lines(tmp_path / "run" / "ledger.jsonl")) == 6
    assert (tmp_path / "run" / "winner" / "model.safetensors").is_file()
    warnings = [record.getMessage() for record in caplog.records if "tracker failed" in record.getMessage()]
    assert len(warnings) == (at != "never")
    assert all(f"ConnectionError: no service at {at}" in warning for warning in warnings)


@pytest.mark.parametrize("option", ["mode", "upload"])
def test_unknown_options_of_the_tracker_name_the_known_ones(option: str, tmp_path: Path):
    arguments = [each for each in workspace(tmp_path) if each != "tracker=none"]
    with pytest.raises(ValueError, match=rf"tracker\.{option}: expected .* or .*, got 'sideways'"):
        carried_out([*arguments, "tracker=wandb", f"tracker.{option}=sideways"], tmp_path / "run")
    assert not (tmp_path / "run").exists()
