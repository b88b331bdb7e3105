"""The command for tests: in a process of its own, or composed and carried out in this one."""

import atexit
import functools
import io
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict
from rich.console import Console

from evohydra.__main__ import place_in_sweep
from evohydra.assembly import composition
from evohydra.assembly.runs import make_run
from evohydra.run import Run
from evohydra.searching.json_lines import sealed, whole_lines
from tests.tiny_models import overrides, save_conf, save_task, save_trio
from tests.warm import Parted, Warm

REPOSITORY = Path(__file__).resolve().parent.parent


def workspace(root: Path, **changes: object) -> list[str]:
    """Tiny models, a task and a conf/ below `root`; the command line of a run on them in generations of 6.

    Its winner is not audited, which is a fifth of so small a run: tests of the audit add audit=all.
    """
    base, one, two = save_trio(root, **changes)
    task = save_task(root / "task")
    save_conf(root)
    return [*overrides(root, base, one, two, task), "optimizer.population=6", "batch_size=64", "audit=none"]


def environment(**changes: str) -> dict[str, str]:
    """The environment of a user without a login, without a network, and with this checkout."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "PYTEST")) and k != "HYDRA_FULL_ERROR"}
    return kept | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"} | changes


@functools.cache
def at_first() -> dict[str, str]:
    """`environment()` when it is asked for the first time: once tests are collected, as imports change it."""
    return environment()


@functools.cache
def warm() -> Warm:
    """What starts this process's commands."""
    made = Warm(at_first())
    atexit.register(made.close)
    return made


def python(*arguments: object, cwd: Path, fresh: bool = False, **changes: str) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` to its end, with nobody at the keyboard.

    A module begins with everything imported (see tests/warm.py), unless a `fresh` process is asked for or what imports
    read of the environment changes.
    """
    flag, *others = map(str, arguments)
    if flag == "-m" and not fresh and warm().fits(environment(**changes)):
        return warm().run(others[0], others[1:], cwd, environment(**changes))
    return subprocess.run(
        [sys.executable, flag, *others],
        cwd=cwd,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def evohydra(*arguments: str, cwd: Path, fresh: bool = False, **changes: str) -> subprocess.CompletedProcess[str]:
    """`python -m evohydra ARGUMENTS` to its end, see `python`."""
    return python("-m", "evohydra", *arguments, cwd=cwd, fresh=fresh, **changes)


def warm_start(overrides: list[str], directory: Path) -> Parted:
    """`python -m evohydra OVERRIDES` in `directory`, begun with everything imported; its output goes to output.txt.

    For tests/kill_repeatedly.py, in place of a process that begins from nothing.
    """
    log = directory.parent / "output.txt"
    return warm().start("evohydra", [*overrides, f"hydra.run.dir={directory}"], Path.cwd(), log)


def built(arguments: list[str], directory: Path) -> Run:
    """The parts of the run that these arguments ask for, in this process."""
    composition.register()
    with initialize_config_dir(composition.conf_dir(), version_base="1.3"):
        config = compose("config", overrides=arguments, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return make_run(plain, directory, place_in_sweep(directory, plain["seed"]), arguments)


def carried_out(arguments: list[str], directory: Path) -> dict[str, Any]:
    """The summary of the run that these arguments ask for, carried out in this process."""
    return built(arguments, directory)(Console(file=io.StringIO(), width=140))


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a ledger, without their check sums; none where there is no file."""
    return whole_lines(path)


def write_lines(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Write a ledger, with check sums as if evohydra had written it."""
    path.write_bytes(b"".join(map(sealed, entries)))


def files(directory: Path) -> dict[str, bytes]:
    """Every file below `directory` with its content."""
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()
    }
