"""The wheel holds all that the command needs, and finds it from anywhere."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.commands import REPOSITORY, environment, python

PACKED = (".py", ".yaml", ".json", ".jsonl", ".safetensors", ".html")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, unpacked."""
    target = tmp_path_factory.mktemp("wheel")
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", *isolation, "--wheel-dir", str(target), "."]
    built = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (archive,) = target.glob("evohydra-*.whl")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(target / "site")
    return target / "site"


def test_every_configuration_and_task_is_in_the_wheel(wheel: Path):
    for folder, inside in ((REPOSITORY / "conf", "evohydra/conf"), (REPOSITORY / "evohydra", "evohydra")):
        files = [path for path in folder.rglob("*") if path.suffix in PACKED and "docs" not in path.parts]
        assert len(files) > 20
        for path in files:
            packed = wheel / inside / path.relative_to(folder)
            assert packed.is_file(), packed
            assert packed.read_bytes() == path.read_bytes()
    assert not (wheel / "tests").exists()


def test_the_command_composes_from_the_wheel_alone(wheel: Path, tmp_path: Path):
    shown = python("-m", "evohydra", "--cfg", "job", "merge=dare_ties", cwd=tmp_path, PYTHONPATH=str(wheel))
    assert shown.returncode == 0, shown.stderr
    assert yaml.safe_load(shown.stdout)["merge"]["parameter"]["method"].endswith("dare_ties")
    source = "from evohydra.assembly import composition; print(composition.conf_dir())"
    found = python("-c", source, cwd=tmp_path, PYTHONPATH=str(wheel))
    assert Path(found.stdout.strip()) == (wheel / "evohydra" / "conf").resolve()
