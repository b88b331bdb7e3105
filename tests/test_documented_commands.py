"""The commands that README and guide show, run for real with a few genomes; minutes long."""

import json
import shutil
from pathlib import Path

import pytest

from tests.commands import evohydra
from tests.test_readme import COMMANDS

# What is not where tests run: models and data of the hub, the reader's own files, GPUs, clusters, a login.
NOT_HERE = (
    "shisa", "evollm_jp", "evovlm_jp", "evosdxl_jp", "evo_ukiyoe", "sdxl_base", "mine+other", "local_encoder",
    "task=gsm8k", "multimodal", "device=cuda", "submitit_slurm", "address=auto", "gpus_per_worker", "push=",
)  # fmt: skip
SMALL = {"budget": "24", "top": "1", "tracker": "none", "audit_examples": "8", "threads": "1", "report": "false"}
LARGE = {"optimizer.population=32": "32", "experiment=tiny_length": "48"}


def small(arguments: tuple[str, ...]) -> list[str]:
    """The command with few genomes, whatever budget it gives, and of a sweep two values of each option."""
    kept = [each for each in arguments if each.split("=")[0] not in SMALL]
    if "-m" in kept:
        kept = [",".join(each.split(",")[:2]) for each in kept]
    budget = next((LARGE[each] for each in kept if each in LARGE), SMALL["budget"])
    return [*kept, *(f"{key}={value}" for key, value in {**SMALL, "budget": budget}.items())]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the runs that commands name."""
    root = tmp_path_factory.mktemp("commands")
    for name in ("NAME", "EARLIER"):
        done = evohydra(*small((f"run={name}",)), cwd=root)
        assert done.returncode == 0, done.stderr
    shutil.copytree(root / "outputs" / "NAME", root / "outputs" / "first")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [each for each in COMMANDS if "..." not in each], ids=" ".join)
def test_it_runs_or_says_in_a_sentence_what_is_not_here(arguments: tuple[str, ...], place: Path) -> None:
    before = set((place / "outputs").iterdir())
    done = evohydra(*small(arguments), cwd=place)
    assert "Traceback" not in done.stdout + done.stderr
    if any(each in " ".join(arguments) for each in NOT_HERE):
        assert done.returncode != 0
        assert len(done.stderr.strip()) > 30
        return
    assert done.returncode == 0, done.stderr
    begun = set((place / "outputs").iterdir()) - before or {place / "outputs" / "NAME"}
    for summary in (file for run in begun for file in run.rglob("summary.json")):
        assert json.loads(summary.read_text())["test"]["winner"]["n"] > 0
