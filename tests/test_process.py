"""What a run sets in its own process."""

import os
import subprocess
import sys
from typing import Literal

import pytest
import torch

from evohydra.assembly.process import suit_threads
from tests.commands import environment

FAULTS = """
import resource, sys, torch
from evohydra.assembly.process import set_up_process
if sys.argv[1] == "set up":
    set_up_process(1)
for _ in range(100):
    torch.ones(500_000), torch.ones(900_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    torch.ones(500_000), torch.ones(900_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **variables: str) -> int:
    """Page faults of 100 pairs of tensors of 2 and 3.6 MB."""
    given = {**environment(), **variables}
    done = subprocess.run([sys.executable, "-c", FAULTS, how], env=given, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept_unless_the_environment_says_otherwise() -> None:
    own = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
    assert faults("as it is", **own) > 10_000
    assert faults("set up") < 1_000
    assert faults("set up", **own) > 10_000


def test_optimizers_have_one_thread_for_linear_algebra() -> None:
    """With several, the last bits of sums are others, and so is a search."""
    code = (
        "import evohydra.assembly.runs\n"
        "from evohydra.assembly.process import set_up_process\n"
        "import numpy, scipy.linalg, threadpoolctl\n"
        "set_up_process('auto')\n"
        "found = [each['num_threads'] for each in threadpoolctl.threadpool_info() if each['user_api'] == 'blas']\n"
        "assert found and set(found) == {1}, found\n"
    )
    given = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("threads", "side", "expected"), [("auto", 1000, 1), ("auto", 3000, 3), (2, 1000, 3)])
def test_a_small_model_has_one_thread(
    threads: int | Literal["auto"], side: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        suit_threads(threads, [(side, side), (side,)])  # a million parameters, or nine
        assert torch.get_num_threads() == expected
        torch.set_num_threads(3)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        suit_threads(threads, [(side, side)])
        assert torch.get_num_threads() == 3  # what the environment says holds
    finally:
        torch.set_num_threads(before)
