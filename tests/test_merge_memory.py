"""Merging from disk to disk needs little memory beside what it maps: some tensors, whatever the size of the models."""

from pathlib import Path

import pytest

from tests.benchmarks import merge_memory
from tests.benchmarks.proc import status
from tests.commands import warm
from tests.warm import Parted

# A model has 76 MB, and its largest tensor 25: the bound is 123 MB. ties needs 51 MB, so a merge that held its whole
# result besides would need 127.
SHAPE = merge_memory.Shape(hidden=384, inner=1024, layers=8, heads=12, kv_heads=4)
SHARD_BYTES = 10**7


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Base and two sources; not to be written to."""
    if "RssAnon" not in status("self"):
        pytest.skip("only Linux says how much memory a process has made")
    return merge_memory.make(tmp_path_factory.mktemp("models"), SHAPE, SHARD_BYTES)


def begin(module: str, arguments: list[str], output: Path) -> Parted:
    """With everything imported, which is not counted."""
    return warm().start(module, arguments, merge_memory.REPOSITORY, output)


@pytest.mark.parametrize("method", ["ties", "dare_ties"])
def test_no_more_than_a_shard_and_four_tensors(method: str, models: list[Path], tmp_path: Path):
    shard, tensor = merge_memory.bound(models[0])
    watched = merge_memory.measure(method, models, tmp_path, SHARD_BYTES, begin=begin)
    assert watched.above < shard + 4 * tensor, watched
