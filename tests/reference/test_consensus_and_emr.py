"""Consensus masks and the elected unified vector, entry by entry."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from evohydra.merging.methods.consensus import consensus
from evohydra.merging.methods.emr import emr
from evohydra.merging.methods.task_arithmetic import task_arithmetic

SEEDS = st.integers(0, 10_000)


def test_consensus_by_hand() -> None:
    # Task vectors (4, 3), (4, 0.5), (4, -3): sums 7, 4.5 and 1. With lambda 0.4 a model needs |tau| >= 0.4 |other|.
    base = torch.tensor([1.0, 1.0, 1.0])
    models = [base + 4, base + torch.tensor([3.0, 0.5, -3.0])]
    assert consensus(base, models, threshold=[0.4, 0.4]).tolist() == [8.0, 1.0, 2.0]
    assert consensus(base, models, threshold=[0.4, 0.1], scaling=0.5).tolist() == [4.5, 3.25, 1.5]
    assert consensus(base, models, threshold=[0.4, 0.4], agree=1).tolist() == [8.0, 5.5, 2.0]


@given(seed=SEEDS, scaling=st.floats(0, 2))
def test_thresholds_of_0_are_task_arithmetic(seed: int, scaling: float) -> None:
    base, *models = torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    result = consensus(base, models, threshold=[0.0] * 3, scaling=scaling, agree=3)
    torch.testing.assert_close(result, task_arithmetic(base, models, weight=[1.0] * 3, scaling=scaling))


@given(seed=SEEDS, threshold=st.lists(st.floats(0, 1), min_size=3, max_size=3), agree=st.integers(1, 3))
def test_entries_are_kept_that_enough_models_have_in_their_mask(seed: int, threshold: list[float], agree: int) -> None:
    base, *models = torch.randn(4, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    vectors = np.stack([(model - base).numpy() for model in models])
    total = vectors.sum(axis=0)
    masks = np.abs(vectors) >= np.array(threshold)[:, None] * np.abs(total - vectors)
    expected = base.numpy() + total * (masks.sum(axis=0) >= agree)
    result = consensus(base, models, threshold=threshold, agree=agree)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_emr_by_hand() -> None:
    # Sums 5, -1, 0 and 0: the larger of 2 and 3, the -4 that outweighs 3, nothing where they cancel or are 0.
    base = torch.tensor([1.0, 1.0, 1.0, 1.0])
    models = [base + torch.tensor([2.0, -4.0, 2.0, 0.0]), base + torch.tensor([3.0, 3.0, -2.0, 0.0])]
    assert emr(base, models).tolist() == [4.0, -3.0, 1.0, 1.0]
    assert emr(base, models, scaling=0.5).tolist() == [2.5, -1.0, 1.0, 1.0]


@given(seed=SEEDS, count=st.integers(1, 4))
def test_emr_keeps_the_largest_magnitude_of_the_elected_sign(seed: int, count: int) -> None:
    base, *models = torch.randn(count + 1, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    vectors = np.stack([(model - base).numpy() for model in models])
    sign = np.sign(vectors.sum(axis=0))
    expected = sign * np.where(np.sign(vectors) == sign, np.abs(vectors), 0).max(axis=0)
    np.testing.assert_allclose((emr(base, models) - base).numpy(), expected, rtol=1e-9, atol=1e-9)
