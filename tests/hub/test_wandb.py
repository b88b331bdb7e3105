"""W&B's side of the line that everybody types: what its client wrote offline is read back, down to commits."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from evohydra.hub.commits import commit_of
from tests.commands import json_lines, python
from tests.fake_wandb import fake_service
from tests.hub.commands import evohydra
from tests.hub.server import Hub
from tests.test_tracker import Job, read_back

SHISA, WIZARD, BASE = "augmxnt/shisa-gamma-7b-v1", "WizardLMTeam/WizardMath-7B-V1.1", "mistralai/Mistral-7B-v0.1"
CONVERSION = "3a3082632fd2f75def2e54ae3286b4360c8d6aa2"
LINE = ["-m", "model=shisa+wizardmath", "optimizer=cmaes,de,random"]
SMALL = ["budget=16", "top=1", "baselines=null", "benchmark.gsm8k_ja_search.limit=2", "threads=1", "run=sweep"]


def without_login(root: Path) -> dict[str, str]:
    return {"HOME": str(root), "NETRC": str(root / "none"), "MPLCONFIGDIR": matplotlib.get_cachedir()}


@pytest.mark.slow
def test_the_sweep_is_a_group_with_every_genome_and_its_lineage(hub: Hub, tmp_path: Path) -> None:
    done = evohydra(hub, tmp_path, *LINE, *SMALL, **without_login(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "benchmark=auto: gsm8k_ja_search, for sources of japanese, mathematics" in done.stdout
    directories = [tmp_path / "outputs" / "sweep" / number for number in "012"]
    jobs = [Job(directory, read_back(directory)) for directory in directories]
    for job, strategy in zip(jobs, ("cmaes", "de", "random"), strict=True):
        (run,) = job.of("run")
        assert (run["run_group"], run["job_type"], run["tags"]) == ("sweep", strategy, [f"optimizer={strategy}"])
        check_configuration(run["config"]["update"])
        assert len(job.rows) == len(job.ledger) == 16
        for line, row in zip(job.ledger, job.rows, strict=True):
            assert row["fitness"] == line["fitness"]
            assert {k.removeprefix("gene/"): v for k, v in row.items() if k.startswith("gene/")} == line["genes"]
        check_lineage(job, hub)
    check_report(tmp_path, directories)


def check_configuration(config: dict[str, Any]) -> None:
    """What was used, where the command said nothing."""
    assert list(config["benchmark"]) == ["gsm8k_ja_search"]
    fitness = {"_target_": "evohydra.searching.fitness.full.Full", "_partial_": True, "reject": None}
    assert config["chosen"] == {
        "tokenizer": "base", "dtype": "torch.bfloat16", "out_dtype": "torch.bfloat16", "device": "cpu",
        "batch_size": 512, "benchmark": ["gsm8k_ja_search"], "fitness": fitness, "budget": 16,
    }  # fmt: skip


def check_lineage(job: Job, hub: Hub) -> None:
    """Sources at the commits that were read, the data, and the winner that came of them."""
    artifacts = {each["name"]: each for each in job.of("artifact")}
    commits = {
        "source-shisa": (SHISA, hub.repositories["models", SHISA].refs["main"]),
        "source-wizardmath": (WIZARD, CONVERSION),
        "source-base": (BASE, hub.repositories["models", BASE].refs["main"]),
    }
    for name, (repository, commit) in commits.items():
        assert artifacts[name]["use_after_commit"]
        assert json.loads(artifacts[name]["metadata"])["commit"] == commit
        (entry,) = artifacts[name]["manifest"]["contents"]
        assert entry["ref"] == f"https://huggingface.co/{repository}/tree/{commit}"
    assert artifacts["data-gsm8k_ja_search"]["use_after_commit"]
    (winner,) = (each for name, each in artifacts.items() if name.startswith("winner-"))
    summary = json.loads((job.directory / "summary.json").read_text())
    assert json.loads(winner["metadata"])["recipe"] == summary["recipe_digest"]
    recipe = json.loads((job.directory / "winner" / "recipe.json").read_text())
    assert recipe["commits"] == {name.removeprefix("source-"): commit for name, (_, commit) in commits.items()}


def check_report(home: Path, directories: list[Path]) -> None:
    """The report's specification holds the runs of the sweep by their ids."""
    with fake_service() as (address, asked):
        login = {"WANDB_BASE_URL": address, "WANDB_API_KEY": "0" * 40}
        made = python("-m", "evohydra.report", "outputs/sweep", "--wandb", cwd=home, **without_login(home), **login)
    assert made.returncode == 0, made.stderr
    (saved,) = (request["variables"] for request in asked if "upsertView" in request["query"])
    assert saved["displayName"] == "evohydra: sweep"
    for directory in directories:
        assert (directory / "wandb" / "id").read_text().strip() in saved["spec"]
        assert len(json_lines(directory / "ledger.jsonl")) == 16
    assert "Best fitness so far" in saved["spec"]


@pytest.mark.parametrize(
    ("path", "commit"),
    [
        (f"/cache/hub/models--a--b/snapshots/{CONVERSION}", CONVERSION),
        (f"/cache/hub/models--a--b/snapshots/{CONVERSION}/unet/model.safetensors", CONVERSION),
        (f"/cache/evohydra/converted/models--a--b/{CONVERSION}", CONVERSION),
        (f"/cache/evohydra/converted/local/{'0' * 64}", None),
        (f"/models/{CONVERSION}", None),
        ("/models/mine", None),
    ],
)
def test_a_commit_is_that_of_a_cache(path: str, commit: str | None) -> None:
    assert commit_of(Path(path)) == commit
