"""Barycentres on the sphere: by hand, against slerp, and the condition that defines the Karcher mean."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evohydra.merging.methods.karcher import karcher
from evohydra.merging.methods.multislerp import multislerp
from evohydra.merging.methods.slerp import slerp

SEEDS = st.integers(0, 10_000)


def near(seed: int, count: int, spread: float = 0.6) -> list[Tensor]:
    """Vectors in float64 around one direction, of different lengths."""
    steps = torch.randn(count + 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return [(k + 1) * (steps[0] / steps[0].norm() + spread * step / step.norm()) for k, step in enumerate(steps[1:])]


def test_multislerp_by_hand() -> None:
    # Unit vectors at 0 and 90 degrees, weights 1/2: m at 45 degrees, the ways to both cancel, length (2 + 4) / 2.
    pair = [torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0])]
    torch.testing.assert_close(multislerp(None, pair, weight=[1.0, 1.0]), torch.full((2,), 3 * math.sqrt(0.5)))
    base = torch.tensor([5.0, 1.0])
    around = multislerp(base, [base + x for x in pair], weight=[1.0, 1.0])
    torch.testing.assert_close(around, base + 3 * math.sqrt(0.5))


def test_multislerp_of_weights_that_are_not_normalized() -> None:
    # Weights 1 and 1 of parallel vectors: m as for 1/2 and 1/2, the length 2 + 4.
    pair = [torch.tensor([2.0, 0.0]), torch.tensor([4.0, 0.0])]
    result = multislerp(None, pair, weight=[1.0, 1.0], normalize_weights=False)
    torch.testing.assert_close(result, torch.tensor([6.0, 0.0]))


@given(seed=SEEDS, weight=st.lists(st.floats(0.1, 2), min_size=2, max_size=4))
def test_multislerp_is_the_exponential_map_at_the_mean(seed: int, weight: list[float]) -> None:
    """Independently: one step of the map that the Karcher iteration repeats, with projections for logarithms."""
    models = near(seed, len(weight))
    share = torch.tensor(weight, dtype=torch.float64) / sum(weight)
    units = torch.stack([model.reshape(-1) / model.norm() for model in models])
    mean = share @ units
    mean = mean / mean.norm()
    step = share @ (units - torch.outer(units @ mean, mean))
    turned = mean * step.norm().cos() + step * torch.sinc(step.norm() / math.pi)
    expected = turned.reshape(3, 4) * sum(s * model.norm() for s, model in zip(share, models, strict=True))
    torch.testing.assert_close(multislerp(None, models, weight=weight), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_opposed_directions(dtype: torch.dtype) -> None:
    """Two are averaged, as in mergekit (whose float16 gives NaN); of more there is no mean direction."""
    one = torch.tensor([1.0, -0.5, 2.0], dtype=dtype)
    assert torch.equal(multislerp(None, [one, -one], weight=[1.0, 1.0]), torch.zeros_like(one))
    assert torch.equal(multislerp(None, [one, -2 * one], weight=[1.0, 1.0]), -0.5 * one)
    with pytest.raises(ValueError, match=r"multislerp: expected directions whose weighted sum is not 0, got 0"):
        multislerp(None, [one, -one, one, -one], weight=[1.0] * 4)


def test_tensors_that_no_model_has_changed_are_the_base() -> None:
    """mergekit cannot merge them; a frozen embedding is a common case."""
    base = torch.tensor([1.0, 2.0])
    assert torch.equal(multislerp(base, [base, base, base], weight=[1.0] * 3), base)


@given(seed=SEEDS, k=st.integers(0, 2))
def test_one_hot_weights_give_that_model(seed: int, k: int) -> None:
    models = near(seed, 3)
    weight = [float(i == k) for i in range(3)]
    torch.testing.assert_close(multislerp(None, models, weight=weight), models[k], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(karcher(None, models, weight=weight), models[k], rtol=1e-6, atol=1e-6)


def test_one_model_is_itself() -> None:
    model = torch.randn(5, generator=torch.Generator().manual_seed(2))
    assert torch.equal(multislerp(torch.ones(5), [model], weight=[0.3]), model)
    assert torch.equal(karcher(None, [model], weight=[0.3]), model)


@given(seed=SEEDS, weight=st.lists(st.floats(0.1, 2), min_size=2, max_size=4))
def test_at_the_karcher_mean_the_weighted_logarithms_sum_to_0(seed: int, weight: list[float]) -> None:
    models = near(seed, len(weight))
    result = karcher(None, models, weight=weight, max_iter=200, tol=1e-12)
    share = [w / sum(weight) for w in weight]
    length = sum(s * float(model.norm()) for s, model in zip(share, models, strict=True))
    assert float(result.norm()) == pytest.approx(length, rel=1e-6)  # norms are float32-exact
    mean = (result / result.norm()).reshape(-1)
    total = torch.zeros_like(mean)
    for s, model in zip(share, models, strict=True):
        unit = (model / model.norm()).reshape(-1)
        along = float(unit @ mean)
        across = unit - along * mean
        total += s * math.atan2(float(across.norm()), along) * across / across.norm()
    assert float(total.norm()) < 1e-9


@given(seed=SEEDS, t=st.floats(0.05, 0.95))
def test_the_karcher_mean_of_two_directions_is_slerp(seed: int, t: float) -> None:
    pair = [x / x.norm() for x in near(seed, 2)]
    result = karcher(None, pair, weight=[1 - t, t], max_iter=200, tol=1e-12)
    torch.testing.assert_close(result, slerp(None, pair, t=t), rtol=1e-6, atol=1e-6)


def test_karcher_by_hand() -> None:
    # Right angle, equal weights: 45 degrees, length (2 + 4) / 2. A zero model has no direction, but a length.
    models = [torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0])]
    torch.testing.assert_close(karcher(None, models, weight=[1.0, 1.0]), torch.full((2,), 3 * math.sqrt(0.5)))
    with_zero = karcher(None, [*models, torch.zeros(2)], weight=[1.0, 1.0, 1.0])
    torch.testing.assert_close(with_zero, torch.full((2,), 2 * math.sqrt(0.5)))


def test_the_karcher_mean_of_opposed_models_is_finite() -> None:
    """The sum of directions is 0: the iteration begins at the first, as in mergekit."""
    one = torch.tensor([3.0, 4.0])
    result = karcher(None, [one, -one], weight=[1.0, 1.0])
    assert result.isfinite().all()
    assert float(result.norm()) == pytest.approx(5.0)
