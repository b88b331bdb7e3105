"""TIES against values worked out by hand, against PEFT's implementation, and trimming to an exact number of entries."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft.utils.merge_utils import ties as peft_ties
from torch import Tensor

from evohydra.merging.methods.breadcrumbs import breadcrumbs
from evohydra.merging.methods.ties import ties

# Two task vectors of five entries, trimmed to density 0.6, that is to int(0.6 * 5) = 3 entries each:
#   tau_1 = [ 4, -1, 2, -3, 0.5 ]   -> largest magnitudes 4, 3, 2 -> [  4, 0, 2, -3, 0 ]
#   tau_2 = [-2,  3, 1, -5, 0.25]   -> largest magnitudes 5, 3, 2 -> [ -2, 3, 0, -5, 0 ]
TAU = torch.tensor([[4.0, -1.0, 2.0, -3.0, 0.5], [-2.0, 3.0, 1.0, -5.0, 0.25]])
BASE = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])


def merge(
    deltas: Tensor, weight: list[float], density: list[float], base: Tensor | None = None, **more: object
) -> Tensor:
    base = torch.zeros_like(deltas[0]) if base is None else base
    return ties(base, [base + delta for delta in deltas], weight=weight, density=density, **more)


def trimmed(delta: Tensor, density: float) -> Tensor:
    """What is left of one task vector."""
    return merge(delta[None], [1.0], [density])


def test_equal_weights_by_hand() -> None:
    # Sums 4-2 = 2, 0+3 = 3, 2+0 = 2, -3-5 = -8, 0: elected signs + + + - +.
    # What agrees: {4}, {3}, {2}, {-3, -5}, {}; the disjoint means: 4, 3, 2, -4, 0.
    expected = BASE + torch.tensor([4.0, 3.0, 2.0, -4.0, 0.0])
    assert torch.equal(merge(TAU, [1.0, 1.0], [0.6, 0.6], BASE), expected)


def test_scaling_by_hand() -> None:
    # Half of the above.
    expected = BASE + torch.tensor([2.0, 1.5, 1.0, -2.0, 0.0])
    assert torch.equal(merge(TAU, [1.0, 1.0], [0.6, 0.6], BASE, scaling=0.5), expected)


def test_trimmed_task_vectors_have_their_norm_from_before() -> None:
    """mergekit's `rescale` (sparsify.py, rescaled_masked_tensor): times the L1 norm before over the one behind."""
    # tau_1: (4 + 1 + 2 + 3 + 0.5) / (4 + 2 + 3) = 10.5 / 9; tau_2: 11.25 / 10.
    one, two = torch.tensor([4.0, 0, 2, -3, 0]) * 10.5 / 9, torch.tensor([-2.0, 3, 0, -5, 0]) * 1.125
    # Sums 4.67 - 2.25, 3.375, 2.33, -3.5 - 5.625: signs + + + -; means of what agrees.
    expected = torch.stack([one[0], two[1], one[2], (one[3] + two[3]) / 2, torch.tensor(0.0)])
    torch.testing.assert_close(merge(TAU, [1.0, 1.0], [0.6, 0.6], rescale="l1"), expected)
    assert torch.equal(merge(TAU, [1.0, 1.0], [1.0, 1.0], rescale="l1"), merge(TAU, [1.0, 1.0], [1.0, 1.0]))
    assert torch.equal(merge(torch.zeros(1, 5), [1.0], [0.6], rescale="l1"), torch.zeros(5))
    with pytest.raises(ValueError, match="rescale must be one of none, l1, got 'density'"):
        merge(TAU, [1.0, 1.0], [0.6, 0.6], rescale="density")


@given(seed=st.integers(0, 2**31), gamma=st.floats(0, 0.2), density=st.floats(0.01, 1), size=st.integers(1, 300))
def test_rescaled_breadcrumbs_have_their_norm_from_before(seed: int, gamma: float, density: float, size: int) -> None:
    """Also where many magnitudes are equal."""
    delta = (torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 4).round() / 4
    how = {"weight": [1.0], "density": [density], "gamma": [gamma]}
    plain = breadcrumbs(torch.zeros(size), [delta], **how)
    found = breadcrumbs(torch.zeros(size), [delta], **how, rescale="l1")
    before, after = float(delta.abs().sum()), float(plain.abs().sum())
    factor = before / after if after and density < 1 else 1.0
    torch.testing.assert_close(found, plain * factor)


@pytest.mark.parametrize(
    ("normalize", "expected"),
    [
        # w = (1, 3): weighted [4, 0, 2, -3, 0] and [-6, 9, 0, -15, 0]; sums -2, 9, 2, -18, 0: signs - + + - +.
        # What agrees: {-6}, {9}, {2}, {-3, -15}; divided by the weights of what agrees: -6/3, 9/3, 2/1, -18/(1+3).
        (True, [-2.0, 3.0, 2.0, -4.5, 0.0]),
        (False, [-6.0, 9.0, 2.0, -18.0, 0.0]),
    ],
)
def test_unequal_weights_by_hand(normalize: bool, expected: list[float]) -> None:
    result = merge(TAU, [1.0, 3.0], [0.6, 0.6], BASE, normalize=normalize)
    assert torch.equal(result, BASE + torch.tensor(expected))


def test_negative_weights_by_hand() -> None:
    # w = (1, -1): weighted [4, 0, 2, -3, 0] and [2, -3, 0, 5, 0]; sums 6, -3, 2, 2, 0: signs + - + + +.
    # What agrees: {4, 2}, {-3}, {2}, {5}; the weights of what agrees sum to 0, -1, 1, -1: a sum of 0 divides by 1.
    result = merge(TAU, [1.0, -1.0], [0.6, 0.6])
    assert torch.equal(result, torch.tensor([6.0, 3.0, 2.0, -5.0, 0.0]))


def test_a_tie_of_signs_elects_plus() -> None:
    # Sums of 0: the paper does not say; mergekit takes plus.
    deltas = torch.tensor([[1.0, -2.0], [-1.0, 2.0]])
    assert torch.equal(merge(deltas, [1.0, 1.0], [1.0, 1.0]), torch.tensor([1.0, 2.0]))


@given(seed=st.integers(0, 10_000), size=st.integers(2, 60), count=st.integers(2, 4), share=st.integers(1, 9))
def test_equals_peft_at_equal_weights(seed: int, size: int, count: int, share: int) -> None:
    """PEFT divides by the number of entries that agree, which is the sum of their weights where these are 1."""
    deltas = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    density = max(share / 10, 1.001 / size)  # PEFT keeps int(density * size) entries, here at least one
    theirs = peft_ties(list(deltas), torch.ones(count), density, "total")
    torch.testing.assert_close(merge(deltas, [1.0] * count, [density] * count), theirs)


@given(
    values=st.lists(st.integers(-2, 2), min_size=1, max_size=40), density=st.floats(0, 1), rows=st.sampled_from([1, 2]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)  # fmt: skip
def test_trimming_keeps_exactly_the_entries_of_largest_magnitude(
    values: list[int], density: float, rows: int, dtype: torch.dtype
) -> None:
    """Of equal magnitudes the first ones: exactly max(1, int(density * n)) entries, never more; none at density 0."""
    delta = torch.tensor(values * rows, dtype=dtype).reshape(rows, -1)
    flat = delta.reshape(-1).tolist()
    count = max(1, int(density * len(flat))) if density > 0 else 0
    ranked = sorted(range(len(flat)), key=lambda i: (-abs(flat[i]), i))  # falling magnitude, then position
    kept = set(ranked[:count])
    assert trimmed(delta, density).reshape(-1).tolist() == [v if i in kept else 0.0 for i, v in enumerate(flat)]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (7, 1), (1, 7)])
def test_trimming_of_small_tensors_keeps_at_least_one_entry(shape: tuple[int, ...]) -> None:
    delta = torch.full(shape, -2.0)
    for density in (1e-9, 0.5, 1.0):
        result = trimmed(delta, density)
        assert result.shape == shape
        assert int((result != 0).sum()) == max(1, int(density * delta.numel()))
    assert not trimmed(delta, 0.0).any()


@pytest.mark.parametrize("density", [-0.1, 1.1, float("nan")])
def test_densities_outside_of_0_and_1_are_errors(density: float) -> None:
    with pytest.raises(ValueError, match=r"density must lie in \[0, 1\]"):
        trimmed(TAU[0], density)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [70_000, 200_001])
def test_many_equal_magnitudes_over_many_blocks(dtype: torch.dtype, size: int) -> None:
    """As sorting the whole tensor does it, for cuts anywhere in it."""
    generator = torch.Generator().manual_seed(size)
    delta = torch.randint(-40, 41, (size,), generator=generator).to(dtype) / 8
    order = delta.abs().float().argsort(descending=True, stable=True)
    for density in (0.0001, 0.31, 0.5, 0.87, 0.999):
        expected = torch.zeros_like(delta)
        kept = order[: int(density * size)]
        expected[kept] = delta[kept]
        assert torch.equal(trimmed(delta, density), expected)
