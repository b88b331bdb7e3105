"""A power cut takes the last line of each log at most, and never half of a file that others are read with."""

import random
from pathlib import Path

import pytest

from evohydra.searching.json_lines import whole_lines
from tests.commands import environment, workspace
from tests.kill_repeatedly import LOGS, content, finish, kill, left_alone, lines, steps
from tests.power_cut import begin_recorded, cut_power, record_of


@pytest.fixture(autouse=True)
def user_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in environment().items():
        monkeypatch.setenv(key, value)


@pytest.mark.parametrize("zeros", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_goes_on_after_power_cuts(zeros: bool, tmp_path: Path) -> None:
    overrides = [*workspace(tmp_path), "budget=14", "top=2", "baselines=null"]
    alone, cut = tmp_path / "alone" / "run", tmp_path / "cut" / "run"
    for directory in (alone, cut):
        directory.parent.mkdir()
    undisturbed = left_alone(overrides, alone, begin_recorded)
    assert record_of(alone).stat().st_size > 0
    generator, done = random.Random(zeros), 0
    for number in range(3):
        left = undisturbed.steps - steps(cut)
        more = generator.randint(1, max(1, left // (3 - number)))
        longer = generator.uniform(0, undisturbed.pace)
        hit = kill(overrides, cut, undisturbed.genomes, after=600.0, more=more, longer=longer, begin=begin_recorded)
        before = {name: lines(cut / name) for name in LOGS}
        cut_power(cut, zeros=zeros)
        done += hit.alive
        assert all(len(whole_lines(cut / name)) >= before[name] - 1 for name in LOGS)
    assert done >= 2
    finish(overrides, cut, begin_recorded)
    cut_power(cut, zeros=zeros)  # the finished run is on the disk, the winner with it
    assert content(cut) == content(alone)


def test_what_is_not_waited_for_is_taken_away(tmp_path: Path) -> None:
    """A mutant that does not wait would lose its lines: the play can see it."""
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "ledger.jsonl").write_text("{}\n")
    assert cut_power(directory, zeros=False) == ["ledger.jsonl"]
    assert list(directory.iterdir()) == []
