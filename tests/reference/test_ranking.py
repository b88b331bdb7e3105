"""Rankings against sorting: which entries are the largest and the smallest, equal ones in their order."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evohydra.merging.kernels import ranking
from evohydra.merging.kernels.ranking import Cut, Ranking

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def reader(x: Tensor) -> Callable[[int, int], Tensor]:
    return lambda start, stop: x[start:stop]


def above(x: Tensor, cut: Cut) -> Tensor:
    return (x > cut.value) | ((x == cut.value) & (torch.arange(len(x)) <= cut.last))


def below(x: Tensor, cut: Cut) -> Tensor:
    return (x < cut.value) | ((x == cut.value) & (torch.arange(len(x)) <= cut.last))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("block", [5, 2**16 - 1])
@given(values=st.lists(st.integers(0, 6), max_size=60), data=st.data())
def test_cuts_are_those_of_a_stable_sort(
    dtype: torch.dtype, block: int, values: list[int], data: st.DataObject
) -> None:
    x = torch.tensor(values, dtype=dtype)
    kept = data.draw(st.integers(0, len(values) + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "BLOCK", block)
        patch.setattr(ranking, "SMALLEST_BLOCK", 1)
        ranks = Ranking(len(x), reader(x))
        largest, smallest = ranks.largest(kept, reader(x)), ranks.smallest(kept, reader(x))
    expected = torch.zeros(len(x), dtype=torch.bool)
    expected[x.argsort(descending=True, stable=True)[:kept]] = True
    assert torch.equal(above(x, largest) & (x != 0), expected & (x != 0))  # zeros add nothing, wherever they are
    expected = torch.zeros(len(x), dtype=torch.bool)
    expected[x.argsort(stable=True)[:kept]] = True
    assert torch.equal(below(x, smallest) & (x != 0), expected & (x != 0))
    assert ranks.nonzero() == int((x != 0).sum())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_large_tensor_takes_little_memory_where_it_has_16_bits(dtype: torch.dtype) -> None:
    x = torch.randn(300_000, generator=torch.Generator().manual_seed(1)).abs().to(dtype)
    ranks = Ranking(len(x), reader(x))
    assert ranks.nbytes <= {torch.bfloat16: 1, torch.float16: 2}.get(dtype, 2 * dtype.itemsize) * len(x)
    for kept in (1, 77, 150_000, 299_999):
        cut = ranks.largest(kept, reader(x))
        assert int(above(x, cut).sum()) == kept


def test_values_that_have_changed_are_noticed() -> None:
    x = torch.tensor([1.0, 1.0, 1.0, 2.0], dtype=torch.bfloat16)
    ranks = Ranking(4, reader(x))
    with pytest.raises(AssertionError, match=r"have changed|was ranked"):
        ranks.largest(2, reader(torch.zeros_like(x)))
