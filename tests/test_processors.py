"""Weights are the same bits whatever instructions, libraries and number of threads compute them.

A setting stands for another processor: torch and MKL choose their code by it, as they do by what a processor has.
"""

import json
from pathlib import Path

import pytest

from tests.commands import python

# They rest on singular values or on exponentials and logarithms, see docs/merging.md.
MAY_DIFFER = (
    "arcee_fusion", "boosted_consensus", "boosted_task_arithmetic", "boosted_ties", "core_space",
    "core_space_dare_ties", "iso_c", "iso_cts", "knots", "knots_dare_ties", "regmean", "regmean_plus_plus", "tsv_m",
    "wudi",
)  # fmt: skip
SETTINGS = {
    "no vectors": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}
# The same processor and libraries, MKL with one thread: here no method may differ.
THREADS = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "1"}


def digests(directory: Path, **settings: str) -> dict[str, str]:
    process = python("-m", "tests.weights_worker", cwd=directory, **settings)
    assert process.returncode == 0, process.stderr
    found: dict[str, str] = json.loads(process.stdout)
    return found


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return digests(tmp_path_factory.mktemp("here"))


@pytest.mark.parametrize("name", SETTINGS)
def test_another_processor_gives_the_same_weights(name: str, here: dict[str, str], tmp_path: Path) -> None:
    there = digests(tmp_path, **SETTINGS[name])
    assert len(there) > 60
    assert {each for each in here if here[each] != there[each]} <= {
        each for each in here if each.split()[0] in MAY_DIFFER
    }


def test_threads_change_no_weight(here: dict[str, str], tmp_path: Path) -> None:
    assert digests(tmp_path, **THREADS) == here
