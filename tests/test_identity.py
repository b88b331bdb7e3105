"""What a run depends on: other data, code, settings or libraries are noticed before another score is added."""

import copy
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from evohydra.report.gathering import gather
from evohydra.scoring.benchmarks import SPLITS
from evohydra.searching.identity import INCIDENTAL, OF_SCORES, OF_THE_SEARCH, check_identity, own_keys
from evohydra.searching.json_lines import LedgerError
from tests.commands import built, carried_out, evohydra, json_lines, workspace
from tests.contracts.discovery import composed


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
        ("benchmark.lm_eval.system_prompt=x", r"benchmark 'lm_eval'"),
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
    later = copy.deepcopy(other)
    later["search"]["seed"] = 9  # no version
    with pytest.raises(LedgerError, match="seed was 1, is now 9"):
        check_identity(tmp_path / "run.json", later, allow_other_versions=True)
    check_identity(tmp_path / "run.json", other)  # they are the run's own from then on
    later = copy.deepcopy(other)
    later["scores"]["versions"]["torch"] = "9.9"
    with pytest.raises(LedgerError, match=r"other versions of libraries \(torch was '[^']+', is now '9\.9'\)"):
        check_identity(tmp_path / "run.json", later)
    check_identity(tmp_path / "run.json", later, allow_other_versions=True)
    kept = json.loads((tmp_path / "run.json").read_text())
    assert kept.pop("earlier_versions") == [
        {"scores.benchmarks.lm_eval.versions.lm-eval": versions["lm-eval"]},
        {"scores.versions.torch": version("torch")},
    ]
    assert kept == later


def test_every_option_is_looked_at_once():
    """A new option has to be put into one of the three lists; it would be taken for the user's own else."""
    known = [*OF_SCORES, *OF_THE_SEARCH, *INCIDENTAL]
    assert len(known) == len(set(known))
    assert set(composed()) - {"experiment"} <= set(known)
    assert own_keys({**composed(), "mine": 1}) == {"mine": 1}


OWN = """
from evohydra.merging.methods.linear import linear


def mine(base, models, *, weight: tuple[float, ...], normalize: bool = True):
    return linear(base, models, weight=weight, normalize=normalize)
"""
SCORER = """
import numpy as np


class Sum:
    families = ("causal_lm",)

    def __init__(self, name):
        self.name = name

    def identity(self):
        return {"splits": {}, "versions": {}}

    def size(self, split):
        return 2

    def __call__(self, live, split, examples=None):
        total = float(sum(parameter.sum() for parameter in live.parameters.values()))
        return np.array([total, total])[slice(None) if examples is None else list(examples)]


def make(name):
    return {name: Sum(name)}
"""


@pytest.mark.parametrize(("module", "change"), [("own_method", "weight=weight"), ("own_scorer", "[total, total]")])
def test_other_code_of_ones_own_is_another_run(
    module: str, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A method and a benchmark that the configuration names by their places."""
    for name, text in (("own_method", OWN), ("own_scorer", SCORER)):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    arguments = workspace(tmp_path)
    (tmp_path / "conf" / "benchmark").mkdir(exist_ok=True)
    (tmp_path / "conf" / "benchmark" / "own.yaml").write_text(
        "# @package benchmark.own\n_target_: own_scorer.make\n_partial_: true\n"
    )
    kept = [each for each in arguments if not each.startswith("benchmark")]
    arguments = [*kept, "benchmark=own", "merge=linear", "merge.parameter.method=own_method:mine",
                 "baselines=null", "top=1"]  # fmt: skip
    carried_out([*arguments, "budget=6"], tmp_path / "run")
    file = tmp_path / f"{module}.py"
    text = file.read_text()
    file.write_text(text.replace(change, f"{change}  # another"))
    refused(arguments, tmp_path / "run", rf"code.{module}\.py has changed")
    file.write_text(text)
    carried_out([*arguments, "budget=12"], tmp_path / "run")


def test_scores_have_a_key_for_each_benchmark_and_split(begun: tuple[list[str], Path], tmp_path: Path):
    """It is of the conditions alone: not of the search, nor of other splits."""

    def keys(*changes: str) -> dict[str, str]:
        identity = built([*begun[0], *changes], tmp_path / "other").identity
        return {split: identity.score_key("lm_eval", split) for split in SPLITS}

    before = keys()
    assert len(set(before.values())) == 3
    assert keys("seed=2", "optimizer=de", "budget=50", "merge.parameter.genes.weight.high=2.0") == before
    shorter = keys("benchmark.lm_eval.splits.test.stop=0.9")
    assert [split for split in SPLITS if shorter[split] != before[split]] == ["test"]
    for change in ("out_dtype=bfloat16", "benchmark.lm_eval.metric=exact", "tokenizer=base"):
        assert not set(keys(change).values()) & set(before.values())


@pytest.mark.parametrize("kept", ["ledger.jsonl", "scores.jsonl"])
def test_scores_of_which_nothing_says_what_they_are_are_refused(begun: tuple[list[str], Path], kept: str):
    """A run.json that is gone is no new run; else an old score would stand under any new metric."""
    arguments, run = begun
    other = {"ledger.jsonl": "scores.jsonl", "scores.jsonl": "ledger.jsonl"}[kept]
    (run / "run.json").unlink()
    (run / other).unlink()
    with pytest.raises(LedgerError, match=rf"{kept} holds scores, but run.json beside it"):
        carried_out([*arguments, "budget=6"], run)
    assert not (run / "run.json").exists()


def test_a_damaged_identity_or_score_is_named(begun: tuple[list[str], Path]):
    arguments, run = begun
    whole = (run / "scores.jsonl").read_text()
    for line in ("null", "{}"):
        (run / "scores.jsonl").write_text(f"{whole}{line}\n")
        with pytest.raises(LedgerError, match=rf"scores.jsonl: line {whole.count(chr(10)) + 1} is damaged"):
            carried_out([*arguments, "budget=6"], run)
    (run / "scores.jsonl").write_text(whole)
    (run / "run.json").write_text("")
    with pytest.raises(LedgerError, match=r"run.json is damaged"):
        carried_out([*arguments, "budget=6"], run)


def test_a_refused_command_does_not_label_the_results_of_another(tmp_path: Path):
    """Hydra writes its files anew before the command is looked at; tables and reports go by what was accepted."""
    arguments = [*workspace(tmp_path), "baselines=null", "top=1", "budget=6"]
    assert evohydra(*arguments, "run=r", cwd=tmp_path).returncode == 0
    refusal = evohydra(*arguments, "seed=9", "run=r", cwd=tmp_path)
    assert refusal.returncode != 0
    assert "seed was 1, is now 9" in refusal.stderr
    (job,) = gather([tmp_path / "outputs" / "r"])
    assert (job.config["seed"], job.seed) == (1, 1)
    assert "seed=9" not in job.overrides
