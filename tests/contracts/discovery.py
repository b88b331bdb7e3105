"""What the contract suites test: every yaml of conf/, and of directories of your own beside it.

Your own method or optimizer is a function or class that Python can import, and a yaml in a conf/ directory that looks
like evohydra's. From a checkout of evohydra, with both in /my:

    PYTHONPATH=/my EVOHYDRA_CONF=/my/conf python -m pytest tests/contracts -k "my_method or my_optimizer"

EVOHYDRA_CONF may name several directories, separated as in PATH.
"""

import functools
import os
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from evohydra.assembly import composition

CONF = Path(composition.conf_dir())
OWN = [Path(directory).resolve() for directory in os.environ.get("EVOHYDRA_CONF", "").split(os.pathsep) if directory]


def names(group: str) -> list[str]:
    """The options of a configuration group."""
    return sorted({file.stem for conf in (CONF, *OWN) for file in (conf / group).glob("*.yaml")})


BASELINES = ("grid", "line", "soup")  # optimizers that do not learn, and come to an end
SEARCHES = [name for name in names("optimizer") if name not in BASELINES]


@functools.cache
def composed(*overrides: str) -> dict[str, Any]:
    """The configuration of this command line, as plain data."""
    return _plain(_of_hydra("config", *overrides))


@functools.cache
def settings_of(group: str, name: str) -> dict[str, Any]:
    """`composed(f"{group}={name}")[group]`, in a third of the time: of all files, only the chosen one is read anew."""
    config, found = _defaults().copy(), _of_hydra(f"{group}/{name}")
    with open_dict(config):  # config.yaml says something of a group, too
        config[group] = {**_config_yaml().get(group, {}), **found.get(group, found)}
    return _plain(config[group])


@functools.cache
def _defaults() -> DictConfig:
    return _of_hydra("config")


@functools.cache
def _config_yaml() -> DictConfig:
    return OmegaConf.load(CONF / "config.yaml")  # type: ignore[return-value]


def _of_hydra(name: str, *overrides: str) -> DictConfig:
    composition.register()
    GlobalHydra.instance().clear()
    searchpath = ",".join(f"file://{directory}" for directory in OWN)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, [f"hydra.searchpath=[{searchpath}]", *overrides])


def _plain(config: DictConfig) -> dict[str, Any]:
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return plain
