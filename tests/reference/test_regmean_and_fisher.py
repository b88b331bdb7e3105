"""RegMean, activation and Fisher weighting against their losses, solved by numpy, and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from evohydra.merging.methods.activation import activation
from evohydra.merging.methods.fisher import fisher
from evohydra.merging.methods.regmean import regmean, regmean_plus_plus

Floats = NDArray[np.float64]
REGMEANS = [regmean, regmean_plus_plus]


def layers(seed: int, count: int, shape: tuple[int, int], rows: int = 50) -> tuple[list[Tensor], list[Floats]]:
    """The weights, (m, n), of `count` layers, and the inputs, (rows, n), of each, which are correlated."""
    generator = np.random.default_rng(seed)
    weights = [torch.from_numpy(generator.normal(size=shape)) for _ in range(count)]
    return weights, [
        generator.normal(size=(rows, shape[1])) @ generator.normal(size=(shape[1], shape[1])) for _ in range(count)
    ]


def grams(inputs: list[Floats]) -> list[Tensor]:
    return [torch.from_numpy(x.T @ x / len(x)) for x in inputs]


@pytest.mark.parametrize("method", REGMEANS)
@given(seed=st.integers(0, 2**31), count=st.integers(2, 4))
def test_regmean_with_alpha_1_is_the_least_squares_solution(method, seed: int, count: int) -> None:
    """sum_k w_k |X_k (W - W_k)^T|^2, by numpy's least squares over all inputs below each other."""
    weights, inputs = layers(seed, count, (4, 6))
    weight = np.random.default_rng(seed).uniform(0.2, 2, count).tolist()
    merged = method(None, weights, statistics=grams(inputs), weight=weight, alpha=1.0)
    scaled = [np.sqrt(w / len(x)) * x for w, x in zip(weight, inputs, strict=True)]
    outputs = [x @ theta.numpy().T for x, theta in zip(scaled, weights, strict=True)]
    expected = np.linalg.lstsq(np.concatenate(scaled), np.concatenate(outputs), rcond=None)[0].T
    np.testing.assert_allclose(merged.numpy(), expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("alpha", [0.1, 0.9])
def test_regmean_follows_the_papers_equation(alpha: float) -> None:
    weights, inputs = layers(3, 3, (5, 7))
    weight = [0.5, 1.0, 0.25]
    left, right = np.zeros((7, 7)), np.zeros((7, 5))
    for w, x, theta in zip(weight, inputs, weights, strict=True):
        gram = x.T @ x / len(x)
        gram = np.where(np.eye(7, dtype=bool), gram, alpha * gram)
        left, right = left + w * gram, right + w * gram @ theta.numpy().T
    expected = np.linalg.solve(left, right).T
    merged = regmean(None, weights, statistics=grams(inputs), weight=weight, alpha=alpha)
    np.testing.assert_allclose(merged.numpy(), expected, atol=1e-4)


def test_sums_in_float32_leave_directions_without_text_alone() -> None:
    """20 texts say nothing of most directions of 1500 inputs; there the average stays, whatever float32 has rounded."""
    generator = np.random.default_rng(0)
    weights = [torch.from_numpy(generator.normal(size=(4, 1500))) for _ in range(2)]
    inputs = [generator.normal(size=(20, 1500)) * generator.lognormal(0, 2, 1500) for _ in range(2)]
    exact, rounded = grams(inputs), [gram.float() for gram in grams(inputs)]
    wanted, found = (regmean(None, weights, statistics=each, weight=[1.0, 1.0], alpha=1.0) for each in (exact, rounded))
    assert float((found - wanted).abs().max()) < 0.05


def test_regmean_by_hand() -> None:
    """Inputs along the axes: each column is an average by the squares of its inputs."""
    models = [torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 5.0]])]
    statistics = [torch.diag(torch.tensor([3.0, 1.0])), torch.diag(torch.tensor([1.0, 1.0]))]
    merged = regmean(None, models, statistics=statistics, weight=[1.0, 1.0])
    torch.testing.assert_close(merged, torch.tensor([[1.5, 3.0]]), rtol=1e-5, atol=0)
    merged = regmean(None, models, statistics=statistics, weight=[0.5, 1.5])
    torch.testing.assert_close(merged, torch.tensor([[2.0, 4.0]]), rtol=1e-5, atol=0)


@given(seed=st.integers(0, 2**31))
def test_activation_weighting_is_regmean_without_correlations(seed: int) -> None:
    weights, inputs = layers(seed, 3, (4, 6))
    weight = [0.3, 1.0, 0.7]
    squares = [torch.from_numpy(np.square(x).mean(axis=0)) for x in inputs]
    merged = activation(None, weights, statistics=squares, weight=weight)
    expected = sum(w * s.numpy() * t.numpy() for w, s, t in zip(weight, squares, weights, strict=True))
    expected = expected / sum(w * s.numpy() for w, s in zip(weight, squares, strict=True))
    np.testing.assert_allclose(merged.numpy(), expected, rtol=1e-3, atol=1e-5)
    other = regmean(None, weights, statistics=grams(inputs), weight=weight, alpha=0.0)
    torch.testing.assert_close(merged, other, rtol=1e-4, atol=1e-4)


def test_fisher_by_hand() -> None:
    models = [torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3.0, 4.0, 8.0])]
    diagonals = [torch.tensor([3.0, 0.0, 0.0]), torch.tensor([1.0, 2.0, 0.0])]
    merged = fisher(None, models, statistics=diagonals, weight=[1.0, 1.0])
    torch.testing.assert_close(merged, torch.tensor([1.5, 4.0, 6.0]), rtol=1e-5, atol=1e-5)
    merged = fisher(None, models, statistics=diagonals, weight=[1.0, 3.0])
    torch.testing.assert_close(merged, torch.tensor([2.0, 4.0, 7.0]), rtol=1e-5, atol=1e-5)


def test_what_no_text_has_gets_the_weighted_average() -> None:
    """An input that is always 0, inputs that are all 0, a tensor that no pass has looked at."""
    weights, inputs = layers(5, 2, (3, 4))
    for x in inputs:
        x[:, 1] = 0.0
    average = 0.25 * weights[0] + 0.75 * weights[1]
    squares = [gram.diagonal() for gram in grams(inputs)]
    for merged in (
        regmean(None, weights, statistics=grams(inputs), weight=[1.0, 3.0]),
        activation(None, weights, statistics=squares, weight=[1.0, 3.0]),
    ):
        torch.testing.assert_close(merged[:, 1], average[:, 1])
        assert not torch.allclose(merged[:, 0], average[:, 0])
    nothing = [torch.zeros(4, 4)] * 2
    torch.testing.assert_close(regmean(None, weights, statistics=nothing, weight=[1.0, 3.0]), average)
    torch.testing.assert_close(fisher(None, weights, statistics=[torch.zeros(3, 4)] * 2, weight=[1.0, 3.0]), average)
    for method in (regmean, activation, fisher):
        torch.testing.assert_close(method(None, weights, statistics=[None, None], weight=[1.0, 3.0]), average)


def test_fewer_texts_than_inputs_leave_the_average_in_other_directions() -> None:
    weights, inputs = layers(7, 2, (3, 8), rows=2)
    merged = regmean(None, weights, statistics=grams(inputs), weight=[1.0, 1.0], alpha=1.0).numpy()
    seen = np.concatenate(inputs)
    unseen = np.linalg.svd(seen)[2][len(seen) :]  # (4, 8)
    average = ((weights[0] + weights[1]) / 2).numpy()
    np.testing.assert_allclose(unseen @ merged.T, unseen @ average.T, atol=1e-4)
    np.testing.assert_allclose(inputs[0] @ merged.T, inputs[0] @ weights[0].numpy().T, atol=1e-2)


@pytest.mark.parametrize("method", [regmean, activation, fisher])
def test_weights_of_0_leave_a_source_out(method) -> None:
    weights, inputs = layers(9, 3, (4, 4))
    statistics = grams(inputs)
    if method is activation:
        statistics = [gram.diagonal() for gram in statistics]
    if method is fisher:
        statistics = [gram.square() for gram in statistics]
    assert method(None, weights, statistics=statistics, weight=[0.0, 0.5, 0.0]) is weights[1]
    without = method(None, weights[:2], statistics=statistics[:2], weight=[1.0, 2.0])
    merged = method(None, weights, statistics=statistics, weight=[1.0, 2.0, 0.0])
    torch.testing.assert_close(merged, without, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [regmean, regmean_plus_plus, activation, fisher])
@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        ([1.0, -0.5], "weight of model 2: expected a number of at least 0, got -0.5"),
        ([0.0, 0.0], "cannot normalize weights that sum to 0"),
        ([1.0], "expected a weight for each of 2 models"),
    ],
)
def test_weights_that_make_no_sense(method, weight: list[float], expected: str) -> None:
    weights, _ = layers(1, 2, (2, 2))
    with pytest.raises(ValueError, match=expected):
        method(None, weights, statistics=[None, None], weight=weight)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_an_alpha_that_makes_no_sense(alpha: float) -> None:
    weights, _ = layers(1, 2, (2, 2))
    with pytest.raises(ValueError, match="alpha: expected a share from 0 to 1"):
        regmean(None, weights, statistics=[None, None], weight=[1.0, 1.0], alpha=alpha)
