"""A command line that cannot be carried out: one sentence, soon, and nothing left in outputs/."""

import io
import logging
import os
import sys
from pathlib import Path

import pytest

from evohydra.assembly import help as pages
from evohydra.assembly import starting
from evohydra.assembly.composition import conf_dir
from tests.commands import evohydra, python

HEAVY = "{'torch', 'transformers', 'scipy', 'pandas', 'lm_eval', 'wandb', 'matplotlib'}"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["budget=abc"], "budget: expected a whole number of at least 1 or auto, got 'abc'"),
        (["optimizer=cmaes", "optimizer.sigma=-1"], "optimizer.sigma: expected a number of more than 0, got -1"),
        (["merge=ties", "merge.parameter.genes.densty.low=1"], "did you mean 'density'? Known keys of"),
        (["optimizer=foo"], "unknown optimizer foo. Known: bipop, bo,"),
        (["run=../x"], "run: expected the name of a directory in outputs/, got '../x'"),
        (["-m", "run=a,'../b'"], "run: expected the name of a directory in outputs/, got '../b'"),
        (["model=tiny_ja+tiny_ja"], "tiny_ja is named twice"),
        (["model=tiny_ja"], "model=tiny_ja: expected two sources or more, joined by + (model=tiny_ja+OTHER), got one"),
    ],
)
def test_one_sentence_and_nothing_left(given: list[str], told: str, tmp_path: Path):
    process = evohydra(*given, cwd=tmp_path)
    assert process.returncode == 1
    (line,) = filter(None, process.stderr.splitlines())
    assert line.startswith("evohydra: ")
    assert told in line
    assert not [each for each in tmp_path.rglob("*") if each != tmp_path / "outputs"]


def test_a_sweep_of_which_no_job_begins_leaves_nothing(tmp_path: Path):
    """A choice that is not there, and a launcher for a cluster that is not there; what was there before stays."""
    (tmp_path / "outputs" / "old").mkdir(parents=True)
    (tmp_path / "outputs" / "old" / "multirun.yaml").write_text("hydra: {}\n")
    for given, told in (
        ("optimizer=cmaes,dee", "unknown optimizer dee. Known:"),
        ("hydra/launcher=submitit_slurm", "are you indeed on a slurm cluster?"),
    ):
        process = evohydra("-m", given, "seed=1,2", cwd=tmp_path)
        assert process.returncode == 1
        (line,) = filter(None, process.stderr.splitlines())
        assert line.startswith("evohydra: ")
        assert told in line
        assert [each.name for each in (tmp_path / "outputs").iterdir()] == ["old"]
    evohydra("-m", "run=old", "optimizer=cmaes,dee", cwd=tmp_path)
    assert (tmp_path / "outputs" / "old" / "multirun.yaml").exists()


def test_a_wrong_value_is_refused_before_libraries_are_loaded(tmp_path: Path):
    code = (
        "import sys; from evohydra.__main__ import main\n"
        "sys.argv[1:] = ['budget=abc']\n"
        f"try: main()\nfinally: print(sorted({HEAVY} & set(sys.modules)))"
    )
    assert python("-c", code, cwd=tmp_path).stdout.strip() == "[]"


def test_what_is_not_empty_stays(tmp_path: Path):
    run = tmp_path / "run"
    (run / ".hydra").mkdir(parents=True)
    (run / "ledger.jsonl").touch()
    assert not starting.leave_nothing(run, ".hydra", "evohydra.log")
    assert (run / "ledger.jsonl").exists()


def test_the_log_of_what_goes_is_closed(tmp_path: Path):
    run = tmp_path / "run"
    (run / ".hydra").mkdir(parents=True)
    handler = logging.FileHandler(run / "evohydra.log")
    logging.getLogger().addHandler(handler)
    assert starting.leave_nothing(run, ".hydra", "evohydra.log")
    assert not run.exists()
    assert handler not in logging.getLogger().handlers


def test_what_another_command_has_begun_stays(tmp_path: Path):
    """It may be reading its sources, and has not written anything of its own yet."""
    earlier = tmp_path / "outputs" / "x"
    (earlier / ".hydra").mkdir(parents=True)
    (earlier / "evohydra.log").touch()
    os.utime(earlier, (1, 1))
    assert evohydra("budget=abc", "run=x", cwd=tmp_path).returncode == 1
    assert (earlier / ".hydra").is_dir()


def test_a_link_to_a_directory_stays(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "real")
    assert not starting.leave_nothing(tmp_path / "run", ".hydra", "evohydra.log")
    assert (tmp_path / "real").is_dir()


def test_messages_are_kept_back_until_somebody_knows(monkeypatch: pytest.MonkeyPatch):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    with starting.held_messages():
        print("one", file=sys.stderr)
        assert shown.getvalue() == ""
        starting.let_through()
        print("two", file=sys.stderr)
    with starting.held_messages():
        print("three", file=sys.stderr)
        starting.drop_messages()
    with starting.held_messages():
        print("four", file=sys.stderr)
    assert shown.getvalue().split() == ["one", "two", "four"]
    assert sys.stderr is shown


def test_help_is_short_and_says_what_options_mean():
    page = pages.usage(["merge", "report"])
    assert len(page.splitlines()) < 80
    for line in (
        "  budget: auto         # genomes to evaluate",
        "  optimizer: bo ",
        "commands, each with --help: merge, report",
    ):
        assert line in page
    assert "_target_" not in page


@pytest.mark.parametrize("group", sorted(each.name for each in Path(conf_dir()).iterdir() if each.is_dir()))
def test_help_says_what_each_choice_of_a_group_is(group: str):
    lines = pages.topic(group).splitlines()
    assert len(lines) == len(list((Path(conf_dir()) / group).glob("*.yaml")))
    for line in lines:
        assert len(line) < 120
        assert len(line.split(maxsplit=1)[1]) > 10


def test_help_shows_the_yaml_of_a_choice_and_of_one_s_own(tmp_path: Path):
    assert pages.topic("merge=ties") == (Path(conf_dir()) / "merge" / "ties.yaml").read_text().rstrip()
    (tmp_path / "merge").mkdir()
    (tmp_path / "merge" / "mine.yaml").write_text("# Half of everything. More.\nmethod: mine\n")
    own = [f"hydra.searchpath=[file://{tmp_path}]"]
    mine = next(line for line in pages.topic("merge", own).splitlines() if line.startswith("merge=mine "))
    assert mine.endswith("  Half of everything.")


@pytest.mark.parametrize("asked", ["foo", "../conf", "merge=foo", "merge/ties", ""])
def test_help_names_what_there_is(asked: str):
    with pytest.raises(ValueError, match=r"--help .*(expected one of backend, benchmark|known are activation, any)"):
        pages.topic(asked)


def test_completion_knows_the_choices(tmp_path: Path):
    line = "evohydra optimizer=cm"
    process = evohydra("-sc", "query=bash", cwd=tmp_path, COMP_LINE=line, COMP_POINT=str(len(line)))
    assert process.stdout.split() == ["optimizer=cmaes", "optimizer=cmawm"]
    assert not [*tmp_path.iterdir()]
