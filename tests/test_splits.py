"""Splits: which examples they hold, in which order, and that no two share one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.splits import Slice, check_disjoint


def test_counts_and_shares_by_hand() -> None:
    assert Slice(2, 5).indices(10, None, None) == [2, 3, 4]
    assert Slice(0.2, 0.5).indices(10, None, None) == [2, 3, 4]
    assert Slice(7).indices(10, None, None) == [7, 8, 9]
    assert Slice(0.6, 1.0).indices(10, None, 2) == [6, 7]
    assert Slice().indices(3, None, None) == [0, 1, 2]
    assert Slice(1, 1.0).indices(4, None, None) == [1, 2, 3]  # a decimal point makes it a share


@given(total=st.integers(3, 200), seed=st.none() | st.integers(0, 99), cuts=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_adjoining_shares_hold_every_example_once(total: int, seed: int | None, cuts: tuple[float, float]) -> None:
    first, second = sorted(cuts)
    parts = [Slice(0.0, first), Slice(first, second), Slice(second, 1.0)]
    found = [index for part in parts for index in part.indices(total, seed, None)]
    assert sorted(found) == list(range(total))
    assert found == Slice().indices(total, seed, None)


def test_the_order_is_that_of_the_seed() -> None:
    orders = [Slice().indices(50, seed, None) for seed in (None, 0, 0, 1)]
    assert orders[0] == list(range(50))
    assert orders[1] == orders[2]
    assert orders[1] != orders[3]
    assert orders[1] != orders[0]
    assert Slice(0, 10).indices(50, 0, None) == orders[1][:10]
    assert Slice(0, 10).indices(50, 0, 4) == orders[1][:4]


@pytest.mark.parametrize("bounds", [(0, 11), (-1, 5), (0.0, 1.5), (-0.1, 0.5)])
def test_bounds_outside_of_the_task_are_errors(bounds: tuple[float, float]) -> None:
    with pytest.raises(BenchmarkError, match=r"reaches to example|lie in \[0, 1\]"):
        Slice(*bounds).indices(10, None, None)


def test_shared_examples_are_found_by_their_text() -> None:
    check_disjoint("b", {"search": ["a", "b", "a"], "validation": ["c"], "test": ["d"]})
    with pytest.raises(BenchmarkError, match=r"'b'.*example 1 of test is example 0 of validation.*b\.splits"):
        check_disjoint("b", {"search": ["a"], "validation": ["c"], "test": ["d", "c"]})


def test_an_empty_split_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="validation split is empty"):
        check_disjoint("b", {"search": ["a"], "validation": [], "test": ["d"]})
