"""One thread, no hub, no caches in the home directory; a trio of tiny models and a toy task for all tests."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports transformers, datasets or lm-eval; commands that tests start inherit it.
SHARED = "EVOHYDRA_TESTS_CACHE"  # processes of one run (pytest -n 2) share what they compile
CACHE = os.environ.get(SHARED) or tempfile.mkdtemp(prefix="evohydra-tests-")
OWN = SHARED not in os.environ
os.environ |= {
    SHARED: CACHE,
    "HF_DATASETS_CACHE": CACHE,
    "TORCHINDUCTOR_CACHE_DIR": CACHE,
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_OFFLINE": "1",
    "OPENBLAS_NUM_THREADS": "1",  # as in a run, see evohydra/assembly/process.py
    "RAY_AUTH_MODE": "disabled",  # else a local Ray changes it for all that this process starts later
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}
os.environ.pop("HYDRA_FULL_ERROR", None)

import shutil  # noqa: E402

import torch  # noqa: E402
from hydra.core.global_hydra import GlobalHydra  # noqa: E402
from hypothesis import settings  # noqa: E402

from tests import tiny_models  # noqa: E402
from tests.ray_nodes import nodes_of_ray  # noqa: E402

torch.set_num_threads(1)
settings.register_profile("quick", deadline=None, max_examples=25, database=None, derandomize=True)
settings.register_profile("long", deadline=None, max_examples=1000, database=None)  # --hypothesis-profile=long
settings.load_profile("quick")


def pytest_unconfigure() -> None:
    if OWN:
        shutil.rmtree(CACHE, ignore_errors=True)


def pytest_collection_finish() -> None:
    from tests.commands import at_first  # its own imports take a second: not for the process that only hands out tests

    at_first()


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """What a test, or evohydra in this process, sets of the environment changes no later command."""
    before = dict(os.environ)
    yield
    for name in (os.environ.keys() | before.keys()) - {"PYTEST_CURRENT_TEST"}:
        if name not in before:
            del os.environ[name]
        elif os.environ.get(name) != before[name]:
            os.environ[name] = before[name]


@pytest.fixture(autouse=True)
def _fresh_hydra() -> Iterator[None]:
    """Hydra keeps the last configuration's loader in a global."""
    yield
    GlobalHydra.instance().clear()


@pytest.fixture(scope="session")
def trio(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A base and two models that began as it; not to be written to."""
    return tiny_models.save_trio(tmp_path_factory.mktemp("trio"))


@pytest.fixture(scope="session")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a generation task for lm-eval; not to be written to."""
    return tiny_models.save_task(tmp_path_factory.mktemp("sums"))


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """A Ray with a node of four CPUs, as far as it knows; nothing of a test is left on it."""
    with nodes_of_ray(num_cpus=4) as cluster:
        yield cluster.address
