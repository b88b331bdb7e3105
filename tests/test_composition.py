"""conf/: every file composes and its target instantiates, a+b+c joins files, and wrong names get a hint."""

import itertools
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra.utils
import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from evohydra.assembly import composition
from evohydra.families import declared
from evohydra.spaces.genes import Axis
from tests.commands import environment

CONF = Path(composition.conf_dir())
FILES = sorted((file.parent.name, file.stem) for file in CONF.glob("*/*.yaml"))
PARTS = [(group, option) for group, option in FILES if group != "experiment"]  # those are overlays of whole runs
GROUPS = sorted(directory.name for directory in CONF.iterdir() if directory.is_dir())
FILL_IN = {"task": "sums", "path": "/somewhere", "of": "sums"}  # what a file leaves to the user


def composed(*overrides: str) -> DictConfig:
    composition.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def chosen(group: str, config: DictConfig) -> list[DictConfig]:
    """The parts of the configuration that a file of this group fills."""
    part = config[group]
    if group == "model":
        return list(part.sources.values())
    parts = {key: each for key, each in part.items() if key != "auto"}  # what a benchmark is chosen by
    return [part] if "_target_" in part else [each for each in parts.values() if isinstance(each, DictConfig)]


def test_every_group_is_in_the_defaults() -> None:
    text = (CONF / "config.yaml").read_text()
    named = {key for entry in yaml.safe_load(text)["defaults"] if isinstance(entry, dict) for key in entry}
    assert set(GROUPS) <= named


@pytest.mark.parametrize(("group", "option"), PARTS, ids=map("/".join, PARTS))
def test_every_file_composes_and_its_target_instantiates(group: str, option: str) -> None:
    value = f"[{option}]" if group == "benchmark" else option
    parts = chosen(group, composed(f"{group}={value}"))
    assert parts
    for part in parts:
        plain: dict[str, Any] = OmegaConf.to_container(part, resolve=True)
        plain |= {key: FILL_IN[key] for key, setting in plain.items() if setting == "???"}
        if group == "model":
            source = declared.parse(option, plain)
            family = hydra.utils.instantiate({"_target_": source.family})
            assert family.name
        else:
            assert callable(hydra.utils.instantiate(plain)) or group in ("executor", "format", "objective")


@pytest.mark.parametrize("option", [option for group, option in FILES if group == "experiment"])
def test_every_experiment_composes(option: str) -> None:
    config = composed(f"experiment={option}")
    assert OmegaConf.to_container(config, resolve=True)
    dimension = 6
    make = hydra.utils.instantiate(OmegaConf.to_container(config.optimizer))
    axis = Axis("categorical", 2) if option == "tiny_prune" else Axis()  # a grid over layers that are taken or not
    optimizer = make(axes=(axis,) * dimension, seed=config.seed, start=np.empty((0, dimension)))
    try:
        assert config.budget == "auto" or config.budget >= optimizer.population
        assert optimizer.ask().shape == (optimizer.population, dimension)
    finally:
        optimizer.close()


def test_sources_are_joined_in_the_order_of_the_command_line() -> None:
    assert list(composed("model=shisa").model.sources) == ["shisa"]
    assert list(composed("model=shisa+wizardmath").model.sources) == ["shisa", "wizardmath"]
    config = composed("model=wizardmath+abel+shisa", "model.sources.abel.path=/models/abel")
    assert list(config.model.sources) == ["wizardmath", "abel", "shisa"]
    assert config.model.sources.abel.path == "/models/abel"
    alone = composed("model=shisa").model.sources.shisa
    assert config.model.sources.shisa == alone
    assert list(composed().model.sources) == ["tiny_ja", "tiny_math"]


def test_a_file_of_ones_own_joins_those_of_the_package(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    text = (CONF / "model" / "shisa.yaml").read_text().replace("model.sources.shisa", "model.sources.mine")
    (tmp_path / "model" / "mine.yaml").write_text(text)
    config = composed(f"hydra.searchpath=[file://{tmp_path}]", "model=abel+mine")
    assert list(config.model.sources) == ["abel", "mine"]


def test_several_benchmarks_are_a_list() -> None:
    assert sorted(composed("benchmark=[tiny_gsm_ja,mgsm_ja]").benchmark) == ["mgsm_ja", "tiny_gsm_ja"]


def test_merges_of_the_baselines_are_files_too() -> None:
    config = composed()
    assert set(config.baselines) == {"ties", "dare_ties"}
    for spec in config.baselines.values():
        assert spec._target_ == config.merge.parameter._target_


@pytest.mark.parametrize("value", ["shisa+nobody", "nobody+shisa", "nobody"])
def test_an_unknown_part_is_an_error(value: str) -> None:
    with pytest.raises(MissingConfigException, match="nobody"):
        composed(f"model={value}")


SWEEP = """
import hydra
from evohydra.assembly import composition

@hydra.main(version_base="1.3", config_path=composition.conf_dir(), config_name="config")
def job(config):
    print("sources:", *config.model.sources)
    return 0.0

composition.register()
job()
"""


def test_joined_sources_in_single_runs_and_in_multiruns(tmp_path: Path) -> None:
    script = tmp_path / "sweep.py"
    script.write_text(SWEEP)
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none", "tracker=none"]

    def found(*arguments: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, str(script), *arguments, *quiet], cwd=tmp_path, env=environment(), capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if line.startswith("sources:")]

    assert found("model=shisa+abel") == ["sources: shisa abel"]
    several = found("-m", "model=shisa+wizardmath,arithmo,abel+shisa+arithmo", "seed=1,2")
    expected = ["sources: shisa wizardmath", "sources: arithmo", "sources: abel shisa arithmo"]
    assert several == [line for line in expected for _ in range(2)]


@pytest.mark.parametrize(
    ("argument", "hints"),
    [
        ("model=shisa+nobody", ["unknown model nobody.", "wizardmath", "tiny_ja"]),
        ("model=nobody+shisa,else", ["unknown model nobody, else."]),
        ("optimizer=cma", ["unknown optimizer cma.", "cmaes", "random"]),
        ("merge=tie", ["unknown merge tie.", "dare_ties"]),
        ("benchmark=[mgsm]", ["unknown benchmark mgsm.", "mgsm_ja"]),
        ("budgets=3", ["unknown option 'budgets'; did you mean 'budget'?", "seed"]),
        ("optimizer.batches=3", ["option 'optimizer.batches'; did you mean 'batch'?", "Known keys of 'optimizer'"]),
        ("merge.parameter.granularity.layer=each", ["did you mean 'layers'?", "modules"]),
        ("baselines=[]", ["baselines: expected a mapping or null, got a list; baselines=null is none at all"]),
        ("zebra=1", ["unknown option 'zebra'. Known options: "]),
        ("hydra/sweeper=optuna", ["unknown hydra/sweeper optuna. Known: basic", "pip install hydra-optuna-sweeper"]),
        (
            "hydra/launcher=cloud",
            ["unknown hydra/launcher cloud.", "joblib", "pip install -c constraints.txt -e '.[launchers]'"],
        ),
    ],
)
def test_hints_name_what_there_is(argument: str, hints: list[str]) -> None:
    composition.register()
    (hint,) = composition.explain(["seed=3", argument, "--cfg", "job"])
    for expected in hints:
        assert expected in hint


def test_what_is_right_needs_no_hint(tmp_path: Path) -> None:
    composition.register()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# @package model.sources.mine\npath: /x\n")
    right = ["model=shisa+abel,arithmo", "benchmark=[tiny_gsm_ja]", "budget=9", "+note=1", "optimizer=random", "-m"]
    assert composition.explain(right) == []
    assert composition.explain(["model=mine+shisa", f"hydra.searchpath=[file://{tmp_path}]"]) == []
    assert composition.explain(["not ( an = override"]) == []
    assert composition.explain(["executor=processes", "executor.workers=2"]) == []  # which executor=local has not
    assert composition.explain(["-m", "optimizer=grid,line", "++optimizer.points=3"]) == []


def test_options_that_only_choices_of_a_sweep_have() -> None:
    """Hydra wants them among the defaults, and says nothing of the sign that helps."""
    composition.register()
    (hint,) = composition.explain(["-m", "optimizer=grid,line", "optimizer.points=3", "seed=1,2"])
    assert "write ++optimizer.points=3, with ++" in hint


def test_every_wrong_override_has_its_own_hint() -> None:
    composition.register()
    hints = composition.explain(["model=a+b", "optimizer=c", "seed=3"])
    assert [hint.split(".")[0] for hint in hints] == ["unknown model a, b", "unknown optimizer c"]
    (hint,) = composition.explain(["executor=processes", "executor.wrokers=2"])
    assert "did you mean 'workers'?" in hint


def test_commands_of_the_same_second_have_directories_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is made once for a command, so that the jobs of a sweep share it."""
    microseconds = itertools.count(7)
    clock = SimpleNamespace(now=lambda: datetime(2030, 1, 1, 1, 1, 1, next(microseconds)))
    monkeypatch.setattr("hydra.core.utils.datetime", clock)
    commands = [composed(), composed()]
    names = [command.run for command in commands]
    assert len(set(names)) == 2
    assert all(name.startswith("2030-01-01_01-01-01-0000") for name in names)
    assert names == [command.run for command in commands]
