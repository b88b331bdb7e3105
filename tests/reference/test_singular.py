"""TSV-Merge and isotropic merging: spectra, hand-made task matrices, and matrices without full rank."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evohydra.merging.methods.iso import iso_c, iso_cts
from evohydra.merging.methods.singular import polar, svd
from evohydra.merging.methods.tsv import tsv_m

SEEDS = st.integers(0, 10_000)
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def randoms(seed: int, count: int, *shape: int) -> list[Tensor]:
    return list(torch.randn(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


@given(seed=SEEDS)
def test_the_polar_factor_is_the_closest_orthonormal_matrix(seed: int) -> None:
    x, nearby = randoms(seed, 2, 6, 4)
    nearest = polar(x)
    torch.testing.assert_close(nearest.T @ nearest, torch.eye(4, dtype=torch.float64), **EXACT)
    other = torch.linalg.qr(x + 0.1 * nearby).Q
    assert float((x - nearest).norm()) <= float((x - other).norm()) + 1e-12
    # For full rank also x (x^T x)^(-1/2).
    values, vectors = torch.linalg.eigh(x.T @ x)
    torch.testing.assert_close(nearest, x @ (vectors * values.rsqrt()) @ vectors.T, rtol=1e-6, atol=1e-6)


def test_directions_without_strength_are_not_invented() -> None:
    x = torch.outer(torch.tensor([3.0, 4.0, 0.0]), torch.tensor([1.0, 0.0]))
    u, s, vt = svd(x)
    assert s.tolist() == pytest.approx([5.0, 0.0])
    assert not u[:, 1].any()
    assert not vt[1].any()
    torch.testing.assert_close(polar(x), torch.outer(torch.tensor([0.6, 0.8, 0.0]), torch.tensor([1.0, 0.0])))
    assert not polar(torch.zeros(3, 2)).any()


def test_tsv_merges_orthogonal_tasks_by_hand() -> None:
    # Two tasks of rank 2 each in 4 x 4: the best component of each... all of both, as they do not interfere.
    base = torch.eye(4, dtype=torch.float64)
    first, second = (
        torch.diag(torch.tensor([3.0, 2.0, 0, 0])).double(),
        torch.diag(torch.tensor([0, 0, 5.0, 1.0])).double(),
    )
    result = tsv_m(base, [base + first, base + second], scaling=0.5)
    torch.testing.assert_close(result, base + 0.5 * (first + second), **EXACT)
    # A quarter of the components for each: the largest one.
    result = tsv_m(base, [base + first, base + second], share=0.5)
    torch.testing.assert_close(result, base + torch.diag(torch.tensor([3.0, 0, 5.0, 0])).double(), **EXACT)


@given(seed=SEEDS, count=st.integers(2, 3))
def test_tsv_keeps_the_singular_values_of_the_tasks(seed: int, count: int) -> None:
    """U and V are orthonormal in the end, so the merged task matrix has the kept singular values."""
    base, *steps = randoms(seed, count + 1, 6, 9)
    delta = tsv_m(base, [base + step for step in steps]) - base
    kept = torch.cat([torch.linalg.svdvals(step)[: 6 // count] for step in steps]).sort(descending=True).values
    torch.testing.assert_close(torch.linalg.svdvals(delta)[: len(kept)], kept, rtol=1e-6, atol=1e-6)


@given(seed=SEEDS)
def test_tsv_of_one_task_is_that_task(seed: int) -> None:
    base, model = randoms(seed, 2, 5, 7)
    torch.testing.assert_close(tsv_m(base, [model]), model, **EXACT)


@given(seed=SEEDS)
def test_tsv_of_the_same_task_twice_adds_nothing_of_its_own(seed: int) -> None:
    """The published code fills what the two bases lack with arbitrary directions of full strength."""
    base, model = randoms(seed, 2, 6, 6)
    u, s, vt = torch.linalg.svd(model - base)
    expected = base + (u[:, :3] * s[:3]) @ vt[:3]
    torch.testing.assert_close(tsv_m(base, [model, model]), expected, rtol=1e-6, atol=1e-6)


@given(seed=SEEDS)
def test_iso_c_has_one_singular_value_and_the_directions_of_the_sum(seed: int) -> None:
    base, *steps = randoms(seed, 4, 5, 8)
    delta = iso_c(base, [base + step for step in steps], scaling=2.0) - base
    total = sum(steps[1:], start=steps[0])
    values = torch.linalg.svdvals(total)
    torch.testing.assert_close(torch.linalg.svdvals(delta), torch.full((5,), 2 * float(values.mean())).double())
    torch.testing.assert_close(delta, 2 * values.mean() * polar(total), rtol=1e-6, atol=1e-6)


@given(seed=SEEDS, common=st.sampled_from([0.0, 0.5, 0.8]))
def test_iso_cts_has_one_singular_value(seed: int, common: float) -> None:
    base, *steps = randoms(seed, 3, 8, 10)
    delta = iso_cts(base, [base + step for step in steps], common=common) - base
    values = torch.linalg.svdvals(delta)
    torch.testing.assert_close(values, values.mean().expand(8), rtol=1e-6, atol=1e-6)


@given(seed=SEEDS)
def test_iso_cts_with_all_in_common_is_iso_c(seed: int) -> None:
    base, *models = randoms(seed, 3, 5, 8)
    torch.testing.assert_close(iso_cts(base, models, common=1.0), iso_c(base, models), rtol=1e-6, atol=1e-6)


def test_iso_cts_by_hand() -> None:
    # The sum is diag(4, 4, 1, 1.5): k = 2 common directions, then of each task what lies outside: 1 and 1.5.
    base = torch.zeros(4, 4, dtype=torch.float64)
    first, second = (torch.diag(torch.tensor(d)).double() for d in ([3.0, 1.0, 1.0, 0.0], [1.0, 3.0, 0.0, 1.5]))
    result = iso_cts(base, [first, second], common=0.5)
    torch.testing.assert_close(result, (4 + 4 + 1 + 1.5) / 4 * torch.eye(4).double(), **EXACT)


@pytest.mark.parametrize("method", [tsv_m, iso_c, iso_cts])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), ()], ids=str)
def test_tensors_that_are_no_matrices_get_the_mean(method: type, shape: tuple[int, ...]) -> None:
    base, first, second = randoms(4, 3, *shape)
    expected = base + 0.5 * ((first - base) + (second - base)) / 2
    torch.testing.assert_close(method(base, [first, second], scaling=0.5), expected)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_more_tasks_than_components(shape: tuple[int, int], count: int) -> None:
    base, *models = randoms(5, count + 1, *shape)
    for method in (tsv_m, iso_c, iso_cts):
        result = method(base, models)
        assert result.isfinite().all()
        assert float((result - base).norm()) <= sum(float((model - base).norm()) for model in models) + 1e-9
