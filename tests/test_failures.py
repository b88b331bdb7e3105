"""What goes wrong in the middle of a run: genomes that cannot be scored, and a disk that is full."""

import json
import sys
from pathlib import Path

import pytest

from evohydra.searching.driver import SearchError
from tests.commands import carried_out, files, json_lines, python, workspace
from tests.fakes import Fussy
from tests.kill_repeatedly import without_seconds

LIMIT = 250_000  # bytes: more than any file of a run but some of the winner's weights
# The command in a process that can write no larger file, as on a full disk.
LIMITED = f"""
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))
runpy.run_module("evohydra", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def fussy(tmp_path: Path) -> list[str]:
    """The command line of a run whose benchmark refuses the evaluations that are added as benchmark.fussy.refuses."""
    arguments = workspace(tmp_path)
    group = tmp_path / "conf" / "benchmark"
    group.mkdir()
    (group / "fussy.yaml").write_text(
        "# @package benchmark.fussy\n_target_: tests.fakes.fussy\n_partial_: true\nrefuses: ''\n"
    )
    return [*(each for each in arguments if "benchmark" not in each), "benchmark=fussy", "baselines=null", "top=2"]


@pytest.mark.parametrize("optimizer", ["cmaes", "sep_cmaes", "de", "random"])
def test_genomes_that_fail_are_recorded_and_the_search_goes_on(optimizer: str, fussy: list[str], tmp_path: Path):
    changes = [f"optimizer={optimizer}", "budget=18", "benchmark.fussy.refuses='2|5|8|1[12]'"]
    summary = carried_out([*fussy, *changes], tmp_path / "run")
    lines = json_lines(tmp_path / "run" / "ledger.jsonl")
    failed = [line["index"] + 1 for line in lines if line["fitness"] is None]
    assert failed == [2, 5, 8, 11, 12]
    for line in lines:
        if line["fitness"] is None:
            assert line["error"] == f"ValueError: cannot stand evaluation {line['index'] + 1}"
            assert line["scores"] == {}
        else:
            assert line["error"] is None
    assert (len(lines), summary["search"]["failed"]) == (18, 5)
    assert summary["search"]["best"] == max(line["fitness"] for line in lines if line["fitness"] is not None)
    # The fake counts from one again: what is on file must not be evaluated once more.
    again = carried_out([*fussy, *changes], tmp_path / "run")
    assert json_lines(tmp_path / "run" / "ledger.jsonl") == lines
    assert again["recipe_digest"] == summary["recipe_digest"]


def test_a_failed_generation_later_on_ends_the_run_too(fussy: list[str], tmp_path: Path):
    with pytest.raises(SearchError, match="every genome of generation 1 failed; the first one: ValueError: cannot"):
        carried_out([*fussy, "budget=18", "benchmark.fussy.refuses='[789]|1[012]'"], tmp_path / "run")
    lines = json_lines(tmp_path / "run" / "ledger.jsonl")
    assert [line["fitness"] is None for line in lines] == [False] * 6 + [True] * 6
    # A genome of before has its scores still: the failures are results, and the same command goes on behind them.
    carried_out([*fussy, "budget=18", "benchmark.fussy.refuses='[789]|1[012]'"], tmp_path / "run")
    assert json_lines(tmp_path / "run" / "ledger.jsonl")[:12] == lines
    assert [line["fitness"] is None for line in json_lines(tmp_path / "run" / "ledger.jsonl")[12:]] == [False] * 6


def test_failures_of_a_sick_machine_are_not_kept(fussy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What was scored before fails too: neither budget nor scores are lost to it."""
    run, command = tmp_path / "run", [*fussy, "budget=18"]
    monkeypatch.setattr(Fussy, "sick", "search ([7-9]|..)")
    for _ in range(2):  # each process scores a generation before it falls ill
        with pytest.raises(SearchError, match=r"every genome of generation .* Genome \d+, which had scores, fails now"):
            carried_out(command, run)
        assert all(line["error"] is None for line in json_lines(run / "scores.jsonl"))
    monkeypatch.setattr(Fussy, "sick", "")
    assert [line["fitness"] is None for line in json_lines(run / "ledger.jsonl")] == [False] * 12
    carried_out(command, tmp_path / "alone")
    carried_out(command, run)
    assert without_seconds(json_lines(run / "ledger.jsonl")) == without_seconds(
        json_lines(tmp_path / "alone" / "ledger.jsonl")
    )


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_on_which_every_model_fails_is_tried_again(
    fussy: list[str], tmp_path: Path, split: str, monkeypatch: pytest.MonkeyPatch
):
    run, command = tmp_path / "run", [*fussy, "budget=6"]
    monkeypatch.setattr(Fussy, "sick", f"{split} .*")
    with pytest.raises(SearchError, match=f"models could be scored on the {split} split; the first one: ValueError"):
        carried_out(command, run)
    assert all(line["error"] is None for line in json_lines(run / "scores.jsonl"))
    monkeypatch.setattr(Fussy, "sick", "")
    assert carried_out(command, run)["test"]["winner"]["score"] is not None


def test_a_first_generation_without_any_score_ends_the_run(fussy: list[str], tmp_path: Path):
    expected = "every genome of the first generation failed; the first one: ValueError: cannot stand evaluation 1"
    with pytest.raises(SearchError, match=expected):
        carried_out([*fussy, "budget=18", "benchmark.fussy.refuses='.*'"], tmp_path / "run")
    assert json_lines(tmp_path / "run" / "ledger.jsonl") == json_lines(tmp_path / "run" / "scores.jsonl") == []
    assert not (tmp_path / "run" / "winner").exists()


def test_a_first_generation_that_a_sick_machine_fails_is_scored_anew(
    fussy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Fussy, "sick", "search .*")
    with pytest.raises(SearchError, match=r"every genome of the first generation failed; .*sick.*not kept"):
        carried_out([*fussy, "budget=6"], tmp_path / "run")
    monkeypatch.setattr(Fussy, "sick", "")
    carried_out([*fussy, "budget=6"], tmp_path / "run")


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_disk_that_is_full_when_the_winner_is_written(tmp_path: Path):
    arguments = [*workspace(tmp_path, intermediate_size=6000), "baselines=null", "top=1", "budget=6"]
    arguments.append("shard_gb=0.0004")  # a few files, of which the first ones can be written
    run = tmp_path / "run"
    weights = (tmp_path / "one" / "model.safetensors").stat().st_size
    assert weights > 5 * LIMIT
    process = python("-c", LIMITED, *arguments, f"hydra.run.dir={run}", cwd=tmp_path)
    assert process.returncode != 0
    assert f"could not write {run / 'winner'}" in process.stderr
    assert "File too large" in process.stderr
    assert "Traceback" not in process.stderr
    left = {path.name for path in run.iterdir()}
    assert not left & {"winner", ".result.partial", ".result", "recipe.json", "summary.json"}
    before = {name: (run / name).read_bytes() for name in ("ledger.jsonl", "scores.jsonl")}
    assert len(json_lines(run / "ledger.jsonl")) == 6

    carried_out(arguments, run)  # there is room again
    assert {name: (run / name).read_bytes() for name in before} == before
    written = {name: content for name, content in files(run / "winner").items() if name.endswith(".safetensors")}
    assert len(written) > 2
    assert sum(map(len, written.values())) > weights * 0.99
    assert json.loads((run / "summary.json").read_text())["evaluations"] == 6
