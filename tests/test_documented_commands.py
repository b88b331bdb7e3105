"""The commands that README and guide show, run for real with a few genomes; minutes long."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from evohydra.assembly import composition
from evohydra.assembly.automatic import with_benchmark
from tests.commands import evohydra
from tests.test_readme import COMMANDS

# What is not where tests run: models and data of the hub, the reader's own files, GPUs, clusters, a login.
NOT_HERE = (
    "shisa", "evollm_jp", "evovlm_jp", "evosdxl_jp", "evo_ukiyoe", "sdxl_base", "mine+other", "local_encoder",
    "task=gsm8k", "multimodal", "device=cuda", "submitit_slurm", "address=auto", "gpus_per_worker", "push=",
    "SmolLM2", "stack.yaml",
)  # fmt: skip
SMALL = {"budget": "24", "top": "1", "tracker": "none", "audit_examples": "4", "threads": "1", "report": "false"}
LARGE = {
    "optimizer.population=32": "32", "experiment=tiny_length": "48", "experiment=tiny_prune": "64",
    "generations=2": "48", "generations=3": "72",
}  # fmt: skip
SPLITS = {"search": 24, "validation": 8, "test": 16}  # examples
Arguments = tuple[str, ...]


def small(arguments: Arguments) -> list[str]:
    """The command with few genomes and examples, whatever it gives, and of a sweep two values of each option."""
    kept = [each for each in arguments if each.split("=")[0] not in SMALL]
    if "-m" in kept:
        kept = [",".join(each.split(",")[:2]) if "[" not in each else each for each in kept]
    budget = next((LARGE[each] for each in kept if each in LARGE), SMALL["budget"])
    return [*kept, *(f"{key}={value}" for key, value in {**SMALL, "budget": budget}.items()), *few_examples(kept)]


def few_examples(arguments: list[str]) -> Iterator[str]:
    """Overrides by which the benchmarks of a command have few examples."""
    plain = composition.composed(
        [each.split(",")[0] if "[" not in each else each for each in arguments if each != "-m"]
    )
    for name, spec in with_benchmark(plain, arguments)[0]["benchmark"].items():
        for split, count in SPLITS.items():
            bounds = spec.get("splits", {}).get(split, {})
            if isinstance(bounds.get("start"), int):
                yield f"benchmark.{name}.splits.{split}.stop={bounds['start'] + count}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the runs and prompts that commands name."""
    root = tmp_path_factory.mktemp("commands")
    for arguments in (("run=NAME",), ("run=first", "merge=dare_ties"), ("run=second", "merge=linear")):
        done = evohydra(*small(arguments), cwd=root)
        assert done.returncode == 0, done.stderr
    shutil.copytree(root / "outputs" / "NAME", root / "outputs" / "EARLIER")
    for name in ("ja.txt", "math.txt"):  # prompts of the reader's own
        (root / name).write_text("3 + 4 =\n7 - 2 =\n")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [each for each in COMMANDS if "..." not in each], ids=" ".join)
def test_it_runs_or_says_in_a_sentence_what_is_not_here(arguments: tuple[str, ...], place: Path) -> None:
    before = set((place / "outputs").iterdir())
    missing = any(each in " ".join(arguments) for each in NOT_HERE)
    done = evohydra(*(arguments if missing else small(arguments)), cwd=place)
    assert "Traceback" not in done.stdout + done.stderr
    if missing:
        assert done.returncode != 0
        assert len(done.stderr.strip()) > 30
        return
    assert done.returncode == 0, done.stderr
    begun = set((place / "outputs").iterdir()) - before or {place / "outputs" / "NAME"}
    for summary in (file for run in begun for file in run.rglob("summary.json")):
        assert json.loads(summary.read_text())["test"]["winner"]["n"] > 0
