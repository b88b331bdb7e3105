"""Methods of one model and a base: NearSwap, Arcee Fusion, passthrough."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evohydra.merging.methods.arcee_fusion import arcee_fusion
from evohydra.merging.methods.nearswap import nearswap
from evohydra.merging.methods.passthrough import passthrough

SEEDS = st.integers(0, 10_000)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def test_nearswap_by_hand() -> None:
    # Distances 0.5, 1, 4 and 0 at t = 1: weights 1, 1, 1/4 and 1.
    base, model = torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([1.5, 0.0, 5.0, 1.0])
    assert nearswap(base, [model], t=1.0).tolist() == [1.5, 0.0, 2.0, 1.0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nearswap_from_the_base_to_the_model(dtype: torch.dtype) -> None:
    """t = 0 is the base in every type, also where mergekit's float16 gives NaN."""
    base, model = torch.tensor([1.0, 2.0, 0.0], dtype=dtype), torch.tensor([1.0, -3.0, 1e-7], dtype=dtype)
    assert torch.equal(nearswap(base, [model], t=0.0), base)
    assert torch.equal(nearswap(base, [model], t=8.0), model)


@given(seed=SEEDS, t=st.floats(1e-4, 2))
def test_nearswap_moves_no_entry_by_more_than_t(seed: int, t: float) -> None:
    base, model = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    moved = nearswap(base, [model], t=t) - base
    torch.testing.assert_close(moved, (model - base).clamp(-t, t), rtol=1e-6, atol=1e-6)


@given(seed=SEEDS, spread=st.floats(-1, 4))
def test_arcee_fusion_takes_what_exceeds_the_threshold(seed: int, spread: float) -> None:
    base, model = torch.randn(2, 8, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).numpy()
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) + 1e-8 for x in (model, base))
    importance = np.abs(model - base) * (p * np.log(p / q)).sum(axis=1, keepdims=True)
    low, middle, high = np.quantile(importance, [0.25, 0.5, 0.75], method="lower")
    threshold = middle + spread * (high - low)
    if np.abs(importance - threshold).min() < 1e-9:
        return
    expected = np.where(importance >= threshold, model, base)
    result = arcee_fusion(torch.from_numpy(base), [torch.from_numpy(model)], spread=spread)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_arcee_fusion_by_hand() -> None:
    """One row differs, and in it one entry: nothing else has importance, and the quartiles are 0."""
    base = torch.zeros(4, 4)
    model = base.clone()
    model[2, 1] = 3.0
    assert torch.equal(arcee_fusion(base, [model]), model)
    # Importances 0, k, 2 k, 10 k of a row: the threshold 1 k + 1.5 * (2 k - 0) is between the third and the fourth.
    base, model = torch.zeros(4, dtype=torch.float64), torch.tensor([0.0, 0.1, 0.2, 1.0], dtype=torch.float64)
    assert arcee_fusion(base, [model]).tolist() == [0.0, 0.0, 0.0, 1.0]
    assert arcee_fusion(base, [model], spread=0.0).tolist() == [0.0, 0.1, 0.2, 1.0]


@pytest.mark.parametrize("shape", [(), (1,), (5, 1)], ids=str)
def test_arcee_fusion_of_rows_of_one_entry_is_the_model(shape: tuple[int, ...]) -> None:
    base, model = torch.zeros(shape), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(arcee_fusion(base, [model]), model)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_passthrough(dtype: torch.dtype) -> None:
    model = torch.tensor([1.0, -3.0, 0.1], dtype=dtype)
    assert torch.equal(passthrough(None, [model]), model)
    assert torch.equal(passthrough(torch.ones(3, dtype=dtype), [model], scale=0.3), model * 0.3)
    assert not passthrough(None, [model], scale=0.0).any()
