"""What a run depends on: other data, code, settings or libraries are noticed before another score is added."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from evohydra.search.identity import check_identity
from evohydra.search.json_lines import LedgerError
from tests.commands import carried_out, json_lines, workspace


@pytest.fixture
def begun(tmp_path: Path) -> tuple[list[str], Path]:
    """The command line of a run that has scored 6 genomes, and its directory."""
    arguments = [*workspace(tmp_path), "baselines=null", "top=1"]
    carried_out([*arguments, "budget=6"], tmp_path / "run")
    return arguments, tmp_path / "run"


def refused(arguments: list[str], directory: Path, expected: str) -> None:
    before = (directory / "ledger.jsonl").read_bytes()
    with pytest.raises(LedgerError, match=expected):
        carried_out([*arguments, "budget=12"], directory)
    assert (directory / "ledger.jsonl").read_bytes() == before


def test_other_data_is_another_run(begun: tuple[list[str], Path], tmp_path: Path):
    """An answer that was changed in the file, of an example that the search sees."""
    arguments, run = begun
    file = tmp_path / "task" / "sums.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    changed = [{**row, "answer": "7" if i == 3 else row["answer"]} for i, row in enumerate(rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in changed))
    refused(arguments, run, r"benchmark 'lm_eval', \w+ split: documents has changed")


def test_other_scoring_code_is_another_run(begun: tuple[list[str], Path], tmp_path: Path):
    arguments, run = begun
    file = tmp_path / "task" / "scoring.py"
    file.write_text(file.read_text().replace("2**32", "2**33"))
    refused(arguments, run, r"benchmark 'lm_eval'.*code.*scoring.*has changed")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("tokenizer=union", r"alignment\.tokenizer was 'same', is now 'union'"),
        ("benchmark.lm_eval.generation_kwargs={max_gen_toks: 3}", r"benchmark 'lm_eval'.*max_gen_toks"),
        ("benchmark.lm_eval.num_fewshot=1", r"benchmark 'lm_eval'"),
        ("seed=2", r"seed was 1, is now 2"),
        ("+mine=3", r"own\.mine was None, is now 3"),
    ],
)
def test_other_settings_are_another_run(begun: tuple[list[str], Path], change: str, expected: str):
    refused([*begun[0], change], begun[1], expected)


def test_what_no_score_depends_on_may_change(begun: tuple[list[str], Path]):
    arguments, run = begun
    known = [each for each in arguments if not each.startswith("batch_size")]
    carried_out([*known, "batch_size=16", "budget=12", "cache_gb=1", "top=2"], run)
    assert len(json_lines(run / "ledger.jsonl")) == 12


def test_other_versions_are_named_and_can_be_allowed(begun: tuple[list[str], Path], tmp_path: Path):
    known: dict[str, Any] = json.loads((begun[1] / "run.json").read_text())
    versions = known["scores"]["benchmarks"]["lm_eval"]["versions"]
    assert {"torch", "transformers", "lm-eval", "tokenizers"} <= set(versions)
    other = copy.deepcopy(known)
    other["scores"]["benchmarks"]["lm_eval"]["versions"]["lm-eval"] = "0.4.99"
    (tmp_path / "run.json").write_text(json.dumps(known))
    with pytest.raises(LedgerError, match=r"other versions of libraries .*lm-eval was .* '0\.4\.99'.*allow_other"):
        check_identity(tmp_path / "run.json", other)
    check_identity(tmp_path / "run.json", other, allow_other_versions=True)
    other["search"]["seed"] = 9  # no version
    with pytest.raises(LedgerError, match="seed was 1, is now 9"):
        check_identity(tmp_path / "run.json", other, allow_other_versions=True)
