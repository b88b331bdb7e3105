"""The top of a report: what was run."""

import json
from pathlib import Path

import pytest
import yaml

from evohydra.checks.libraries import machine
from evohydra.report.contents import contents
from evohydra.report.gathering import gather
from evohydra.report.origin import origin_blocks
from tests.saved_runs import save_run, save_sweep

IDENTITY = {
    "scores": {"dtype": "torch.bfloat16", "out_dtype": "torch.float32", "device": "cpu"},
    "search": {
        "models": [
            {"name": "a", "path": "owner/a", "revision": "abc", "adapter": None},
            {"name": "b", "path": "/b", "adapter": "lora"},
        ],
        "base": {"name": "base", "path": "owner/base"},
        "merge": {"parameter": {"method": "ties"}, "dataflow": None},
        "optimizer": {"_target_": "x.y.CMAES", "sigma": 0.2},
        "fitness": {"_target_": "x.y.Full", "_partial_": True},
    },
}


def told(directory: Path) -> dict[str, str]:
    (job,) = gather([directory])
    (table,) = origin_blocks(job)
    return dict(table.rows)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    directory = save_run(tmp_path / "run", "cmaes", 3, 0.4, genomes=12)
    (directory / "run.json").write_text(json.dumps(IDENTITY))
    return directory


def test_it_says_what_was_merged_and_how(run: Path):
    rows = told(run)
    assert rows["command"].startswith("python -m evohydra optimizer=cmaes seed=3")
    assert rows["sources"] == "a: owner/a at abc; b: /b with adapter lora"
    assert rows["base"] == "base: owner/base"
    assert rows["merge"].startswith("ties, ")
    assert rows["merge"].endswith(" genes")
    assert rows["optimizer"] == "CMAES (sigma=0.2)"
    assert rows["fitness"] == "Full"
    assert rows["numbers"] == "merge bfloat16, model float32, on cpu"
    assert rows["seed"] == "3"
    assert rows["genomes"].startswith("12 of ")


def test_secrets_of_the_command_line_are_not_shown(run: Path):
    (run / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(["tracker.api_key=geheimnis", "seed=3"]))
    assert "geheimnis" not in str(told(run))
    assert "seed=3" in told(run)["command"]


def test_the_command_can_be_copied(run: Path):
    (run / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(["merge.parameter.frozen={a: 1}"]))
    assert told(run)["command"] == "python -m evohydra 'merge.parameter.frozen={a: 1}'"


@pytest.mark.parametrize(
    "identity", [{}, {"scores": 1, "search": [1]}, {"search": {"models": "x", "merge": 3, "optimizer": []}}]
)
def test_what_is_not_known_is_left_out(run: Path, identity: object):
    (run / "run.json").write_text(json.dumps(identity))
    rows = told(run)
    assert "command" in rows
    assert "sources" not in rows


def test_a_single_run_begins_with_it_and_a_sweep_has_a_table_of_runs(tmp_path: Path):
    sweep = save_sweep(tmp_path / "sweep")
    jobs = gather([sweep])
    assert [section.title for section in contents(jobs[:1], sweep)][:2] == ["In short", "What was run"]
    assert "What was run" not in [section.title for section in contents(jobs, sweep)]


def test_a_machine_has_a_name_and_cores():
    assert " cores, " in machine()
    assert not machine().startswith(",")
