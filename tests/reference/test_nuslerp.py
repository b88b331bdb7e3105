"""NuSLERP by hand, line by line, and as a rotation in double precision."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evohydra.merging.methods.nuslerp import nuslerp

SEEDS = st.integers(0, 10_000)
WEIGHTS = st.tuples(st.floats(0, 2), st.floats(0, 2))


def slerped(first: Tensor, second: Tensor, t: float) -> Tensor:
    """Independently: the components along the first vector and orthogonal to it, scaled by Shoemake's factors."""
    a, b = first.double().numpy(), second.double().numpy()
    turn = math.acos(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))
    return torch.from_numpy((math.sin((1 - t) * turn) * a + math.sin(t * turn) * b) / math.sin(turn))


def test_a_right_angle_by_hand() -> None:
    # Weights 2 : 1, so t = 1/3: sin(60 deg) * v0 + sin(30 deg) * v1.
    first, second = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0])
    expected = torch.tensor([2 * math.sqrt(3) / 2, 4 * 0.5])
    torch.testing.assert_close(nuslerp(None, [first, second], weight=[2.0, 1.0]), expected)
    # Task vectors are interpolated around a base.
    base = torch.tensor([1.0, -3.0])
    torch.testing.assert_close(nuslerp(base, [base + first, base + second], weight=[2.0, 1.0]), base + expected)


@given(seed=SEEDS, weight=WEIGHTS)
def test_lines_are_slerped_one_by_one(seed: int, weight: tuple[float, float]) -> None:
    base, first, second = torch.randn(3, 4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    t = 0.5 if abs(sum(weight)) < 1e-6 else weight[1] / sum(weight)
    rows = nuslerp(base, [first, second], weight=weight, nuslerp_flatten=False)
    columns = nuslerp(base, [first, second], weight=weight, nuslerp_flatten=False, nuslerp_row_wise=True)
    whole = nuslerp(base, [first, second], weight=weight, nuslerp_row_wise=True)
    steps = (first - base, second - base)
    for i in range(4):
        for j in range(3):
            expected = base[i, j] + slerped(*(step[i, j] for step in steps), t)
            torch.testing.assert_close(rows[i, j], expected, rtol=1e-7, atol=1e-7)
    for j in range(3):
        for k in range(5):
            expected = base[:, j, k] + slerped(*(step[:, j, k] for step in steps), t)
            torch.testing.assert_close(columns[:, j, k], expected, rtol=1e-6, atol=1e-6)
    expected = base + slerped(*(step.reshape(-1) for step in steps), t).reshape(base.shape)
    torch.testing.assert_close(whole, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_parallel_and_antiparallel_lines_are_interpolated_linearly(dtype: torch.dtype) -> None:
    """Those whose cosine is 1 in the type of the models; float32 sums of squares may miss it, in mergekit too."""
    for rows, flatten in (([[1.0, 0.0], [0.0, -2.0]], False), ([[0.0, 0.0], [0.0, -2.0]], True)):
        first = torch.tensor(rows, dtype=dtype)
        for factor in (2.0, -1.0):
            result = nuslerp(None, [first, factor * first], weight=[3.0, 1.0], nuslerp_flatten=flatten)
            assert torch.equal(result, 0.75 * first + 0.25 * factor * first)


def test_a_line_of_zeros_is_at_a_right_angle() -> None:
    first, second = torch.zeros(1, 2), torch.tensor([[4.0, 0.0]])
    result = nuslerp(None, [first, second], weight=[2.0, 1.0])
    torch.testing.assert_close(result, torch.tensor([[2.0, 0.0]]))  # sin(30 deg) * 4


@pytest.mark.parametrize("weight", [[0.0, 0.0], [1.0, -1.0], [0.7, 0.7]])
def test_weights_that_sum_to_0_count_as_equal(weight: list[float]) -> None:
    pair = list(torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(nuslerp(None, pair, weight=weight), nuslerp(None, pair, weight=[1.0, 1.0]))


@given(seed=SEEDS, flatten=st.booleans(), columns=st.booleans(), around=st.booleans())
def test_one_hot_weights_give_that_model(seed: int, flatten: bool, columns: bool, around: bool) -> None:
    base, *pair = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(seed))
    for k, weight in enumerate(([1.0, 0.0], [0.0, 0.3])):
        result = nuslerp(
            base if around else None, pair, weight=weight, nuslerp_flatten=flatten, nuslerp_row_wise=columns
        )
        torch.testing.assert_close(result, pair[k], rtol=1e-5, atol=1e-5)
