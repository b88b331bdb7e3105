"""Merging from disk to disk needs little memory beside what it maps: some tensors, whatever the size of the models."""

from pathlib import Path

import pytest

from tests.benchmarks import merge_memory
from tests.benchmarks.proc import status

SHAPE = merge_memory.Shape(hidden=768, inner=1024, layers=2, heads=12, kv_heads=4)  # 114 MB a model
SHARD_BYTES = 2 * 10**7


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Base and two sources; not to be written to."""
    if "RssAnon" not in status("self"):
        pytest.skip("only Linux says how much memory a process has made")
    return merge_memory.make(tmp_path_factory.mktemp("models"), SHAPE, SHARD_BYTES)


@pytest.mark.parametrize("method", ["ties", "dare_ties"])
def test_no_more_than_a_shard_and_four_tensors(method: str, models: list[Path], tmp_path: Path):
    shard, tensor = merge_memory.bound(models[0])
    watched = merge_memory.measure(method, models, tmp_path, SHARD_BYTES)
    assert watched.above < shard + 4 * tensor, watched
