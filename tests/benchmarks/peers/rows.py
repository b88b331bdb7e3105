"""What is compared: each peer's packages, and the command line that searches with it."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evohydra.merging.finding import ZOO
from tests.benchmarks.peers.scoring import environment

SOURCES, BASE = ("tiny_ja", "tiny_math"), "base"
HERE = "tests.benchmarks.peers"
# Environments of their own. mergenetic wants Python 3.10 or 3.11; what it asks pip for cannot be imported together
# (vLLM holds numpy below 2, the pyarrow of today wants 2), so that pyarrow follows in a step of its own.
ENVIRONMENTS = {
    "mergekit": (("mergekit[evolve]==0.1.5", "torch==2.13.0", "lm-eval==0.4.13", "cma==4.5.0"),),
    "mergenetic": (("mergenetic==0.1.1",), ("pyarrow<21",)),
}
# mergekit-evolve's own default of --max-fevals. pycma ends the generation, and evaluates its last mean: 111 genomes.
MAX_FEVALS = 100
# evohydra scores validation examples too: 33,400 examples in all with CMA-ES, where 111 genomes of 300 are 33,300. By
# likelihood a genome has 64 examples, and some are scored by the metric on the same examples besides.
VALIDATION = 5 * 200
AS_MANY, AS_MANY_BY_LIKELIHOOD = "budget=108", "budget=440"
# mergekit-evolve's genome and settings: a weight for each layer and source, begun at 1 / n_models with sigma0 = 1/6.
# Of the weight's range, [0, 2], that is the mean 1/4 and the sigma 1/12. Its weights are absolute values without bound,
# its merges bfloat16.
AS_MERGEKIT_EVOLVE = (
    "optimizer=cmaes",
    "dtype=bfloat16",
    "merge.parameter.granularity.edges=false",
    "merge.parameter.genes.weight.high=2",
    "optimizer.mean=0.25",
    f"optimizer.sigma={1 / 12}",
    "start=[]",
)
# mergenetic's SLERP has a t for attention and one for the MLPs at five depths, and one for all else.
AS_MERGENETIC = (
    "merge=slerp",
    "merge.parameter.granularity.modules=true",
    "merge.parameter.granularity.edges=false",
)


@dataclass(frozen=True)
class Row:
    """One line of the table: `command(python of the environment, directory of the run, seed, faster)`.

    `faster` spares what takes time and changes no result, where there is such a thing.
    """

    label: str
    environment: str | None
    command: Callable[[str, Path, int, bool], list[str]]


def evolve_configuration() -> dict[str, Any]:
    """mergekit-evolve's file."""
    return {
        "genome": {
            "models": [str(ZOO / name) for name in SOURCES],
            "base_model": str(ZOO / BASE),
            "merge_method": "task_arithmetic",
            "layer_granularity": 1,
        },
        "tasks": [{"name": "tiny_gsm_ja", "metric": "exact_match,none"}],
    }


def _mergekit_evolve(python: str, directory: Path, seed: int, _: bool) -> list[str]:
    file = directory / "evolve.yml"
    file.write_text(yaml.safe_dump(evolve_configuration(), sort_keys=False))
    options = ["--storage-path", str(directory / "storage"), "--max-fevals", str(MAX_FEVALS), "--no-merge-cuda"]
    chosen = [sys.executable, str(record(directory)), str(seed), str(file)]
    return [python, "-m", f"{HERE}.mergekit_evolve", *chosen, *options]


def _mergenetic(algorithm: str) -> Callable[[str, Path, int, bool], list[str]]:
    def command(python: str, directory: Path, seed: int, faster: bool) -> list[str]:
        models = [str(ZOO / name) for name in SOURCES]
        kind = [algorithm, "freeze" if faster else "-"]
        chosen = [str(record(directory)), str(seed), str(directory / "out"), *kind, *models]
        return [python, "-m", f"{HERE}.mergenetic_search", sys.executable, *chosen]

    return command


def _evohydra(*overrides: str) -> Callable[[str, Path, int, bool], list[str]]:
    def command(python: str, directory: Path, seed: int, _: bool) -> list[str]:
        settings = [f"seed={seed}", "tracker=none", "threads=1"]
        return [python, "-m", "evohydra", *overrides, *settings, f"hydra.run.dir={directory / 'run'}"]

    return command


ROWS = {
    "evohydra": Row("evohydra at its defaults", None, _evohydra()),
    "evohydra_as_many": Row("evohydra, as many examples as its peers", None, _evohydra(AS_MANY_BY_LIKELIHOOD)),
    "evohydra_cmaes": Row("evohydra, CMA-ES on all examples", None, _evohydra("optimizer=cmaes", AS_MANY)),
    "evohydra_paper": Row("evohydra, CMA-ES, 204 genomes", None, _evohydra("optimizer=cmaes")),
    "evohydra_as_mergekit": Row(
        "evohydra with mergekit-evolve's genome and settings",
        None,
        _evohydra(*AS_MERGEKIT_EVOLVE, AS_MANY),
    ),
    "evohydra_slerp": Row(
        "evohydra, SLERP by layer and module", None, _evohydra("optimizer=cmaes", *AS_MERGENETIC, AS_MANY)
    ),
    "mergekit_evolve": Row("mergekit-evolve 0.1.5, scored by evohydra", "mergekit", _mergekit_evolve),
    "mergenetic_ga": Row("mergenetic 0.1.1, GA, SLERP", "mergenetic", _mergenetic("ga")),
    "mergenetic_de": Row("mergenetic 0.1.1, DE, SLERP", "mergenetic", _mergenetic("de")),
}


def record(directory: Path) -> Path:
    """Where a run keeps a line for each genome that it has scored."""
    ours = directory / "run" / "ledger.jsonl"
    return ours if ours.exists() else directory / "record.jsonl"


def start(name: str, seed: int, directory: Path, python: str, *, faster: bool) -> "subprocess.Popen[bytes]":
    """The search of a row in `directory`, leading a process group of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    command = ROWS[name].command(python, directory, seed, faster)
    with (directory / "output.txt").open("ab") as log:
        return subprocess.Popen(
            command, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory,
            start_new_session=True,
        )  # fmt: skip


def python_of(name: str | None, out: Path) -> str:
    """The Python of an environment below `out`, which is made where it is missing; None is this one."""
    if name is None:
        return sys.executable
    directory = out / "environments" / name
    python, done = directory / "bin" / "python", directory / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        for packages in ENVIRONMENTS[name]:
            subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        done.touch()
    return str(python)
