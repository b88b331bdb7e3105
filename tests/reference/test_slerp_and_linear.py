"""Slerp as a rotation of constant speed, linear averages and task arithmetic against numpy in double precision."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evohydra.merging.methods.linear import linear
from evohydra.merging.methods.slerp import slerp
from evohydra.merging.methods.task_arithmetic import task_arithmetic

SEEDS = st.integers(0, 10_000)


def unit_vectors(seed: int, size: int = 12) -> tuple[Tensor, Tensor]:
    pair = torch.randn(2, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return tuple(pair / pair.norm(dim=1, keepdim=True))


def angle(first: Tensor, second: Tensor) -> float:
    """In double precision, accurate for small angles too (Kahan)."""
    a, b = (v.reshape(-1) / v.norm() for v in (first, second))
    return 2 * math.atan2(float((a - b).norm()), float((a + b).norm()))


@given(seed=SEEDS, t=st.floats(0, 1))
def test_the_angle_grows_at_constant_speed(seed: int, t: float) -> None:
    first, second = unit_vectors(seed)
    middle = slerp(None, [first.reshape(3, 4), second.reshape(3, 4)], t=t)
    assert middle.shape == (3, 4)
    assert float(middle.norm()) == pytest.approx(1.0, abs=1e-9)
    assert angle(first, middle) == pytest.approx(t * angle(first, second), abs=1e-6)
    assert angle(second, middle) == pytest.approx((1 - t) * angle(first, second), abs=1e-6)


@given(seed=SEEDS, t=st.floats(0, 1))
def test_it_is_a_rotation_in_the_plane_of_both(seed: int, t: float) -> None:
    """Independently: rotate the first towards the component of the second that is orthogonal to it."""
    first, second = unit_vectors(seed)
    towards = second - (first @ second) * first
    towards = towards / towards.norm()
    turn = t * angle(first, second)
    torch.testing.assert_close(
        slerp(None, [first, second], t=t), first * math.cos(turn) + towards * math.sin(turn), rtol=0, atol=1e-9
    )


def test_raw_tensors_are_interpolated_by_hand() -> None:
    # A right angle: sin(60 deg) * v0 + sin(30 deg) * v1 at t = 1/3, norms of 2 and 4 as they are.
    first, second = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0])
    torch.testing.assert_close(slerp(None, [first, second], t=1 / 3), torch.tensor([2 * math.sqrt(3) / 2, 4 * 0.5]))


@pytest.mark.parametrize("degrees", [5, 15, 60, 120, 175])
def test_small_and_large_angles(degrees: float) -> None:
    turn = math.radians(degrees)
    first = torch.tensor([1.0, 0.0], dtype=torch.float64)
    second = torch.tensor([math.cos(turn), math.sin(turn)], dtype=torch.float64)
    expected = torch.tensor([math.cos(0.3 * turn), math.sin(0.3 * turn)], dtype=torch.float64)
    torch.testing.assert_close(slerp(None, [first, second], t=0.3), expected, rtol=0, atol=1e-12)


@given(seed=SEEDS)
def test_endpoints(seed: int) -> None:
    pair = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(slerp(None, list(pair), t=0.0), pair[0])
    torch.testing.assert_close(slerp(None, list(pair), t=1.0), pair[1])


@pytest.mark.parametrize("factor", [1.0, 3.0, -1.0])
def test_parallel_and_antiparallel_tensors_are_interpolated_linearly(factor: float) -> None:
    first = torch.tensor([1.0, -2.0, 0.5])
    for t in (0.0, 0.25, 1.0):
        expected = first * (1 - t) + factor * first * t
        torch.testing.assert_close(slerp(None, [first, factor * first], t=t), expected)
        torch.testing.assert_close(slerp(None, [factor * first, first], t=1 - t), expected)


def test_zero_tensors_count_as_orthogonal_to_all() -> None:
    """mergekit's choice: the other tensor shrinks by the sine, not linearly."""
    first = torch.tensor([1.0, -2.0, 0.5])
    torch.testing.assert_close(slerp(None, [first, torch.zeros(3)], t=1 / 3), first * math.sin(math.pi / 3))
    torch.testing.assert_close(slerp(None, [torch.zeros(3), first], t=1 / 3), first * math.sin(math.pi / 6))
    assert not slerp(None, [torch.zeros(3), torch.zeros(3)], t=0.5).any()


def test_nearly_parallel_tensors_are_not_torn() -> None:
    """Where the formula changes from the circle to the line, the result does not jump."""
    first = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for degrees in (1.80, 1.82):  # the cosines 0.99951 and 0.99950 on both sides of the threshold
        turn = math.radians(degrees)
        second = torch.tensor([math.cos(turn), math.sin(turn)], dtype=torch.float64)
        middle = slerp(None, [first, second], t=0.3)
        expected = torch.tensor([math.cos(0.3 * turn), math.sin(0.3 * turn)], dtype=torch.float64)
        torch.testing.assert_close(middle, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("count", [1, 3])
def test_slerp_takes_exactly_two(count: int) -> None:
    with pytest.raises(ValueError, match=f"exactly 2 models, got {count}"):
        slerp(None, [torch.ones(2)] * count, t=0.5)


@given(seed=SEEDS, weight=st.lists(st.floats(0.01, 2), min_size=1, max_size=4), normalize=st.booleans())
def test_linear_is_the_weighted_sum(seed: int, weight: list[float], normalize: bool) -> None:
    models = torch.randn(len(weight), 3, 4, generator=torch.Generator().manual_seed(seed))
    shares = np.array(weight) / (sum(weight) if normalize else 1.0)
    expected = np.tensordot(shares, models.double().numpy(), axes=1)
    result = linear(None, list(models), weight=weight, normalize=normalize)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-5)


@given(
    seed=SEEDS, weight=st.lists(st.floats(-1, 2), min_size=1, max_size=4), scaling=st.floats(-1, 2),
)  # fmt: skip
def test_task_arithmetic_adds_the_weighted_task_vectors(seed: int, weight: list[float], scaling: float) -> None:
    tensors = torch.randn(len(weight) + 1, 3, 4, generator=torch.Generator().manual_seed(seed))
    base, *models = tensors
    exact = tensors.double().numpy()
    expected = exact[0] + scaling * np.tensordot(weight, exact[1:] - exact[0], axes=1)
    result = task_arithmetic(base, models, weight=weight, scaling=scaling)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_normalized_task_arithmetic_by_hand() -> None:
    # Weights (1, 3) of task vectors 4 and 8: (1 * 4 + 3 * 8) / 4 = 7.
    base = torch.tensor([10.0])
    result = task_arithmetic(base, [base + 4, base + 8], weight=[1.0, 3.0], normalize=True)
    assert result.tolist() == [17.0]


def test_weights_that_sum_to_0_cannot_be_normalized() -> None:
    for weight in ([0.0, 0.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match="sum to 0"):
            linear(None, [torch.ones(2)] * 2, weight=weight)
