"""The geometric median: scipy finds no nearer point, and outliers do not move it far."""

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from evohydra.merging.methods.geometric_median import geometric_median

SEEDS = st.integers(0, 10_000)


def test_by_hand() -> None:
    # Of an equilateral triangle the centre; of three points on a line the middle one; of two equal weights the mean.
    corners = [torch.tensor([math.cos(k * 2 * math.pi / 3), math.sin(k * 2 * math.pi / 3)]) + 5 for k in range(3)]
    torch.testing.assert_close(geometric_median(None, corners, weight=[1.0] * 3), torch.tensor([5.0, 5.0]))
    line = [torch.tensor([x, 2 * x], dtype=torch.float64) for x in (0.0, 1.0, 7.0)]
    middle = geometric_median(None, line, weight=[1.0] * 3, max_iter=2000)
    torch.testing.assert_close(middle, line[1], rtol=0, atol=1e-5)
    assert geometric_median(None, [torch.zeros(2), torch.ones(2)], weight=[1.0, 1.0]).tolist() == [0.5, 0.5]


def test_the_heavier_half_wins() -> None:
    one, other = torch.zeros(2), torch.ones(2)
    result = geometric_median(None, [one, other], weight=[3.0, 1.0], max_iter=1000)
    torch.testing.assert_close(result, one, rtol=0, atol=1e-5)


@given(seed=SEEDS, weight=st.lists(st.floats(0.1, 1), min_size=3, max_size=5))
def test_no_point_is_nearer(seed: int, weight: list[float]) -> None:
    points = torch.randn(len(weight), 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    flat = points.reshape(len(weight), -1).numpy()

    def cost(v: np.ndarray) -> float:
        return float(np.dot(weight, np.linalg.norm(flat - v, axis=1)))

    found = geometric_median(None, list(points), weight=weight, max_iter=5000).reshape(-1).numpy()
    best = minimize(cost, flat.mean(axis=0), method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-8}).fun
    assert cost(found) <= best + 1e-4


@given(seed=SEEDS, k=st.integers(0, 2))
def test_one_hot_weights_give_that_model_exactly(seed: int, k: int) -> None:
    models = list(torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(seed)))
    assert torch.equal(geometric_median(None, models, weight=[float(i == k) for i in range(3)]), models[k])


def test_an_outlier_pulls_no_further_than_a_step() -> None:
    generator = torch.Generator().manual_seed(3)
    close = [torch.randn(20, generator=generator) for _ in range(4)]
    far = [geometric_median(None, [*close, torch.full((20,), scale)], weight=[1.0] * 5) for scale in (1e3, 1e6)]
    assert float(far[0].norm()) < 10
    torch.testing.assert_close(far[0], far[1], rtol=0, atol=0.05)
