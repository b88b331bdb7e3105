"""A winner that is not the live model: the run is kept, with the reason, and the next try may verify it."""

import json
from pathlib import Path

import pytest
import torch

from evohydra.families.comparison import Comparison, apart, differing, rounding
from evohydra.winner.formats.plain import Plain
from evohydra.winner.writer import WinnerError
from tests.commands import carried_out, evohydra, json_lines, workspace

SMALL = ("baselines=null", "top=1", "budget=6")


class Doubtful(Plain):
    """A format whose checkpoints are never what they should be."""

    def verify(self, *_: object) -> Comparison:
        return Comparison(("lm_head.weight", "model.norm.weight"), 0.0, 1e-6)


def check_kept(run: Path, reason: str) -> None:
    """All of the run is there, under names that say what it is."""
    summary, recipe = (json.loads((run / name).read_text()) for name in ("summary.json", "recipe.json"))
    assert summary["winner_unverified"] == recipe["winner_unverified"] == reason
    assert summary["evaluations"] == len(json_lines(run / "ledger.jsonl")) == 6
    assert not (run / "winner").exists()
    kept = run / "winner-unverified"
    assert (kept / "model.safetensors").is_file()
    assert json.loads((kept / "recipe.json").read_text()) == recipe
    assert f"**Not verified**: {reason}." in (kept / "README.md").read_text()
    assert reason in (run / "report.html").read_text()


def test_the_command_keeps_the_run_and_ends_with_the_reason(tmp_path: Path):
    arguments = [*workspace(tmp_path), *SMALL, "report=true", "format._target_=tests.test_unverified.Doubtful"]
    process = evohydra(*arguments, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert process.returncode == 1
    reason = "the written winner differs from the live model in the weights of 2 tensors, the first is lm_head.weight"
    assert f"evohydra: {reason}; it is kept as {tmp_path / 'run' / 'winner-unverified'}" in process.stderr
    assert "Traceback" not in process.stderr
    assert "run/summary.json: all scores" in process.stdout
    check_kept(tmp_path / "run", reason)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Comparison((), 0.5, 1e-6), "by 0.5 of its largest output, where rounding explains 1e-06"),
        (OSError("gone"), "could not be read back (OSError: gone)"),
    ],
    ids=["outputs", "unreadable"],
)
def test_the_same_command_verifies_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found, reason: str):
    def verify(*_: object) -> Comparison:
        if isinstance(found, Exception):
            raise found
        return found

    arguments = [*workspace(tmp_path), *SMALL, "report=true"]
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(Plain, "verify", verify)
        with pytest.raises(WinnerError) as caught:
            carried_out(arguments, run)
    assert reason in str(caught.value)
    check_kept(run, str(caught.value).split("; it is kept")[0])
    before = (run / "ledger.jsonl").read_bytes()
    summary = carried_out(arguments, run)
    assert "winner_unverified" not in summary
    assert "winner_unverified" not in (run / "summary.json").read_text() + (run / "recipe.json").read_text()
    assert (run / "winner" / "model.safetensors").is_file()
    assert not (run / "winner-unverified").exists()
    assert (run / "ledger.jsonl").read_bytes() == before


def test_comparing_sees_a_single_bit():
    one, two = (torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.BatchNorm1d(3)) for _ in range(2))
    two.load_state_dict(one.state_dict())
    assert differing(one, two) == ()
    two[0].bias.data[1] = torch.nextafter(two[0].bias.data[1], torch.tensor(9.0))
    assert differing(one, two, "part/") == ("part/0.bias",)
    one[0].bias.data.zero_()
    two[0].bias.data.zero_().neg_()
    assert differing(one, two) == ("0.bias",)
    assert differing(one, torch.nn.Sequential(one[0])) == tuple(
        sorted(n for n in one.state_dict() if n.startswith("1."))
    )


def test_what_is_not_finite_in_one_of_both_is_apart():
    nan, inf = float("nan"), float("inf")
    assert apart(torch.tensor([1.0, nan]), torch.tensor([1.0, nan])) == 0.0
    assert apart(torch.tensor([1.0, nan]), torch.tensor([nan, 1.0])) == inf
    assert apart(torch.tensor([1.0, inf]), torch.tensor([1.0, 2.0])) > 1e30
    assert apart(torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0])) == 0.25


def test_rounding_grows_with_depth_width_and_type():
    """It stays far below what another model gives."""

    def model(depth: int, width: int) -> torch.nn.Module:
        return torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(depth)))

    small = rounding([model(2, 16)], torch.float32)
    assert 1e-7 < small < 1e-6
    assert small < rounding([model(20, 16)], torch.float32) < rounding([model(20, 1600)], torch.float32) < 1e-4
    assert small < rounding([model(2, 16)], torch.float32, passes=4) == 2 * small
    assert 1e-3 < rounding([model(2, 16)], torch.bfloat16) < 0.02
