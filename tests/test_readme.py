"""Every command line that the README shows composes; the two for newcomers are what CI runs."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from evohydra.assembly import composition
from tests.tiny_models import save_source

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
LINES = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines() if line.strip()]
RUN = ["python", "-m", "evohydra"]
COMMANDS = [line[3:] if line[:3] == RUN else line for line in LINES if line[:3] == RUN or "=" in line[0]]


def test_there_are_commands_to_check():
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_composes(arguments: list[str], tmp_path: Path):
    composition.register()
    overrides = [argument for argument in arguments if argument != "-m"]
    if "-m" in arguments:  # one job of the sweep
        overrides = [argument.split(",")[0] for argument in overrides]
    for name in ("mine", "other"):
        save_source(tmp_path / "conf", name)
    overrides = [each.replace("/my/conf", str(tmp_path / "conf")) for each in overrides]
    with initialize_config_dir(composition.conf_dir(), version_base="1.3"):
        config = compose("config", overrides)
    assert config.model.sources
    assert config.merge.get("parameter") or config.merge.get("dataflow")
    assert config.benchmark


def test_the_newcomers_commands_are_those_of_ci():
    script = (ROOT / ".ci" / "run").read_text()
    newcomer = [" ".join(line) for line in LINES if line[:2] == ["pip", "install"] and "&&" in line]
    assert len(newcomer) == 2
    for command in newcomer:
        install, run = (part.strip() for part in command.split("&&"))
        assert install.replace(".[test]", "'.[test]'") in script
        assert re.search(rf"^{re.escape(run)}\b", script, re.MULTILINE)
