"""WUDI-Merging against its loss, and PCB-Merging against its formulas, written again here in NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from evohydra.merging.methods.pcb import pcb
from evohydra.merging.methods.task_arithmetic import task_arithmetic
from evohydra.merging.methods.wudi import wudi

SEEDS = st.integers(0, 10_000)
SHAPES = [(3, 8), (8, 3), (6, 6)]  # less rows together than columns, more, and between


def randoms(seed: int, count: int, *shape: int) -> list[Tensor]:
    return list(torch.randn(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def loss(merged: Tensor, steps: list[Tensor]) -> Tensor:
    """arXiv 2503.08099, equation 14, of one linear layer."""
    return torch.stack([((merged - step) @ step.T).square().sum() / step.square().sum() for step in steps]).sum()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_wudi_is_at_the_bottom_of_its_loss(shape: tuple[int, int], count: int) -> None:
    base, *steps = randoms(3, count + 1, *shape)
    merged = (wudi(base, [base + step for step in steps], ridge=0.0) - base).requires_grad_()
    (slope,) = torch.autograd.grad(loss(merged, steps), merged)
    assert float(slope.abs().max()) < 1e-9
    # The pseudo-inverse of the issue, as numpy computes it.
    shares = [1 / step.square().sum() for step in steps]
    a = sum(w * step.T @ step for w, step in zip(shares, steps, strict=True))
    b = sum(w * step @ step.T @ step for w, step in zip(shares, steps, strict=True))
    inverse = torch.as_tensor(np.linalg.pinv(a.numpy(), rcond=1e-10))
    torch.testing.assert_close(merged, b @ inverse, rtol=1e-6, atol=1e-8)


def test_wudi_goes_where_the_papers_optimizer_goes() -> None:
    """Adam from the sum of the task vectors, as section 4 says, for longer."""
    base, *steps = randoms(5, 3, 4, 6)
    found = sum(steps[1:], start=steps[0]).clone().requires_grad_()
    optimizer = torch.optim.Adam([found], lr=2e-2)
    for _ in range(1000):
        optimizer.zero_grad()
        loss(found, steps).backward()
        optimizer.step()
    merged = wudi(base, [base + step for step in steps], ridge=0.0) - base
    torch.testing.assert_close(merged, found.detach(), rtol=1e-4, atol=1e-4)


@given(seed=SEEDS, ridge=st.floats(1e-3, 10))
def test_the_ridge_is_a_penalty_on_the_way_from_the_sum(seed: int, ridge: float) -> None:
    base, *steps = randoms(seed, 3, 5, 7)
    merged = (wudi(base, [base + step for step in steps], ridge=ridge) - base).requires_grad_()
    strongest = torch.linalg.eigvalsh(sum(step.T @ step / step.square().sum() for step in steps))[-1]
    penalty = ridge * strongest * (merged - sum(steps[1:], start=steps[0])).square().sum()
    (slope,) = torch.autograd.grad(loss(merged, steps) + penalty, merged)
    assert float(slope.abs().max()) < 1e-9


@given(seed=SEEDS, scaling=st.floats(0, 2))
def test_a_ridge_without_end_is_task_arithmetic(seed: int, scaling: float) -> None:
    base, *steps = randoms(seed, 3, 5, 7)
    models = [base + step for step in steps]
    torch.testing.assert_close(
        wudi(base, models, ridge=1e15, scaling=scaling), task_arithmetic(base, models, weight=[1, 1], scaling=scaling)
    )


def test_wudi_by_hand() -> None:
    # Tasks that read different inputs do not disturb each other: their sum. The same task twice is that task.
    base = torch.eye(2, dtype=torch.float64)
    first, second = (torch.tensor(rows).double() for rows in ([[3.0, 0.0], [4.0, 0.0]], [[0.0, 1.0], [0.0, -2.0]]))
    torch.testing.assert_close(wudi(base, [base + first, base + second], ridge=0.0), base + first + second)
    torch.testing.assert_close(wudi(base, [base + first, base + first], ridge=0.0, scaling=0.5), base + 0.5 * first)
    # Rows (2, 0) and (1, 1), which have the squared lengths 4 and 2: A = [[1.5, 0.5], [0.5, 0.5]], B = (5, 1), B A^-1.
    base = torch.zeros(1, 2, dtype=torch.float64)
    models = [torch.tensor([[2.0, 0.0]]).double(), torch.tensor([[1.0, 1.0]]).double()]
    torch.testing.assert_close(wudi(base, models, ridge=0.0), torch.tensor([[2.0, 0.0]]).double())


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), ()], ids=str)
def test_wudi_gives_other_tensors_the_mean(shape: tuple[int, ...]) -> None:
    base, first, second = randoms(4, 3, *shape)
    torch.testing.assert_close(
        wudi(base, [first, second], scaling=0.5), base + 0.5 * ((first - base) + (second - base)) / 2
    )


def test_wudi_of_matrices_without_strength() -> None:
    base, step = randoms(6, 2, 4, 5)
    assert torch.equal(wudi(base, [base, base], ridge=0.0), base)
    torch.testing.assert_close(wudi(base, [base, base + step], ridge=0.0), base + step)
    narrow = torch.outer(step[:, 0], step[0])
    torch.testing.assert_close(wudi(base, [base + narrow, base + 2 * narrow], ridge=0.0), base + 1.5 * narrow)


def published(vectors: NDArray[np.float64], weight: list[float], density: float) -> NDArray[np.float64]:
    """The merged task vector of `vectors`, (models, entries), by the formulas of github.com/duguodong7/pcb-merging.

    Its clamping of the largest magnitudes leaves out one more entry; tensors here are too small for that of others.
    """
    size = np.abs(vectors)
    least, most = size.min(axis=1, keepdims=True), size.max(axis=1, keepdims=True)
    scores = np.exp(len(vectors) * ((size - least) / (most - least)) ** 2) * np.tanh(vectors * vectors.sum(axis=0))
    cuts = np.sort(scores, axis=1)[:, int(scores.shape[1] * (1 - density))][:, None]
    scales = (np.maximum(scores, cuts) - cuts) / (scores.max(axis=1, keepdims=True) - cuts)
    merged: NDArray[np.float64] = (np.array(weight)[:, None] * vectors * scales).sum(axis=0)
    return merged / np.maximum(scales.sum(axis=0), 1e-12)


@given(seed=SEEDS, count=st.integers(1, 3), density=st.sampled_from([0.05, 0.1, 0.2, 0.5, 0.9, 1.0]))
def test_pcb_follows_the_published_formulas(seed: int, count: int, density: float) -> None:
    base, *steps = randoms(seed, count + 1, 10, 20)
    weight = [1.0, 0.5, 1.5][:count]
    merged = pcb(base, [base + step for step in steps], weight=weight, density=density) - base
    expected = published(np.stack([step.reshape(-1).numpy() for step in steps]), weight, density).reshape(10, 20)
    np.testing.assert_allclose(merged.numpy(), expected, rtol=1e-4, atol=1e-4)  # scores are float32


def test_pcb_by_hand() -> None:
    # Scores (0.96, 1.20, 7.39) and (0.96, -0.76, 7.39). With all of them the scales are (0, 0.04, 1) and (0.21, 0, 1);
    # with the best two or less of each only the last entries count.
    base = torch.ones(3)
    models = [base + torch.tensor([1.0, 2.0, 4.0]), base + torch.tensor([1.0, -1.0, 2.0])]
    torch.testing.assert_close(pcb(base, models, weight=[1, 1], density=1.0), base + torch.tensor([1.0, 2.0, 3.0]))
    for density in (0.6, 0.4, 0.3):
        result = pcb(base, models, weight=[1.0, 0.5], density=density, scaling=2.0)
        torch.testing.assert_close(result, base + torch.tensor([0.0, 0.0, 2 * (4 + 0.5 * 2) / 2]))
    assert torch.equal(pcb(base, models, weight=[1, 1], density=0.0), base)


def test_pcb_of_scores_that_are_all_the_same() -> None:
    # One entry each: they stay where they agree with the sum, and their mean is taken.
    one = torch.ones(1)
    assert pcb(one, [one + 2, one + 4], weight=[1, 1]).tolist() == [4.0]
    assert pcb(one, [one + 2, one - 1], weight=[1, 1]).tolist() == [3.0]
    assert pcb(one, [one + 2, one], weight=[1, 1]).tolist() == [3.0]


def test_pcb_clamps_outliers() -> None:
    base = torch.zeros(20_000)
    step = torch.linspace(1.0, 2.0, 20_000)
    step[7], step[9] = 1000.0, 500.0  # two largest and two smallest are 0.01 %
    merged = pcb(base, [step], weight=[1.0], density=0.5)
    assert merged[7] == merged[9] == merged.max() == 2.0
