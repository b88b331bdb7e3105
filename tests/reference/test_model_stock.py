"""Model Stock: t from angles worked out by hand, and row by row."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evohydra.merging.methods.model_stock import model_stock

SEEDS = st.integers(0, 10_000)


def test_two_models_at_60_degrees_by_hand() -> None:
    # cos = 1/2, t = 2 cos / (1 + cos) = 2/3.
    base = torch.tensor([1.0, 1.0], dtype=torch.float64)
    steps = [torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([0.5, math.sqrt(3) / 2], dtype=torch.float64)]
    expected = base + 2 / 3 * (steps[0] + steps[1]) / 2
    torch.testing.assert_close(model_stock(base, [base + step for step in steps]), expected)
    # Half of t goes half the way.
    half = model_stock(base, [base + step for step in steps], scaling=0.5)
    torch.testing.assert_close(half, base + 1 / 3 * (steps[0] + steps[1]) / 2)


@given(seed=SEEDS, count=st.integers(2, 4))
def test_the_paper_formula_for_n_models(seed: int, count: int) -> None:
    """t = N cos / (1 + (N - 1) cos) with the mean cosine of all pairs."""
    generator = torch.Generator().manual_seed(seed)
    base, common, *steps = torch.randn(count + 2, 3, 5, dtype=torch.float64, generator=generator)
    models = [base + common + 0.5 * step for step in steps]

    def expected(w: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        delta = w - near
        cosines = [
            torch.nn.functional.cosine_similarity(delta[i], delta[j], dim=0) for i in range(count) for j in range(i)
        ]
        cosine = sum(cosines) / len(cosines)
        t = count * cosine / (1 + (count - 1) * cosine)
        return t * w.mean(dim=0) + (1 - t) * near

    stacked = torch.stack(models)
    whole = expected(stacked.reshape(count, -1), base.reshape(-1)).reshape(3, 5)
    torch.testing.assert_close(model_stock(base, models), whole)
    rows = torch.stack([expected(stacked[:, i], base[i]) for i in range(3)])
    torch.testing.assert_close(model_stock(base, models, filter_wise=True), rows)


@pytest.mark.parametrize("filter_wise", [False, True])
def test_opposed_models_give_the_base(filter_wise: bool) -> None:
    base, step = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, -0.25]])
    assert torch.equal(model_stock(base, [base + step, base - step], filter_wise=filter_wise), base)


@pytest.mark.parametrize("filter_wise", [False, True])
def test_models_that_agree_give_their_average(filter_wise: bool) -> None:
    base, step = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[0.5, -0.25], [1.0, 1.0]])
    result = model_stock(base, [base + step, base + 3 * step], filter_wise=filter_wise)
    torch.testing.assert_close(result, base + 2 * step)
    assert torch.equal(model_stock(base, [base + step, base + step], scaling=0.0, filter_wise=filter_wise), base)
