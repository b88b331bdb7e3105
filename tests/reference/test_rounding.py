"""Rounding to 16 bits against torch's own conversion, ties and neighbours of powers of two included."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evohydra.merging.kernels.arithmetic import multiply_add, rounded, stored

HARD = [2 - 2.0**-k for k in range(1, 24)] + [1 + 2.0**-8, 1 + 2.0**-9 + 2.0**-23, 1 + 3 * 2.0**-8, 0.0, -0.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scale", [1.0, -1.0, 2.0**-13, 3e-5])
def test_hard_numbers(dtype: torch.dtype, scale: float) -> None:
    x = torch.tensor(HARD) * scale
    assert torch.equal(rounded(x, dtype), x.to(dtype).float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_million_numbers_and_all_ties(dtype: torch.dtype) -> None:
    x = torch.randn(10**6, generator=torch.Generator().manual_seed(0))
    near = x.to(dtype)
    ties = (near.float() + near.nextafter(torch.full_like(near, 9.0)).float()) / 2 if dtype == torch.float16 else None
    if ties is None:  # torch has no nextafter for it: half of the last place of bfloat16 is bit 15 of float32
        ties = (near.float().view(torch.int32) + 2**15).view(torch.float32)
    for numbers in (x, ties, ties * (1 + 2.0**-23), ties * (1 - 2.0**-24)):
        assert torch.equal(rounded(numbers, dtype), numbers.to(dtype).float())


@given(value=st.floats(-(2.0**100), 2.0**100, width=32).filter(lambda value: value == 0 or abs(value) > 2e-38))
def test_any_number(value: float) -> None:
    x = torch.tensor([value])
    assert torch.equal(rounded(x, torch.bfloat16), x.bfloat16().float())


def test_wide_types_are_left_alone() -> None:
    x = torch.tensor([1 / 3])
    assert rounded(x, torch.float32) is x
    assert stored([1 / 3], torch.bfloat16) == [float(torch.tensor(1 / 3, dtype=torch.bfloat16))]


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1.0, 1e-3, 1e4]))
def test_products_and_sums_are_rounded_once(seed: int, scale: float) -> None:
    """As in double precision, where the product of two float32 numbers is exact; cancelling sums too."""
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, 1000, generator=generator)
    factor = torch.randn((), generator=generator) * scale
    for start in (noise, -x * factor, -x * factor * (1 + 2.0**-20), torch.zeros(1000)):
        exact = (x.double() * factor.double() + start.double()).float()
        assert torch.equal(multiply_add(x, factor, start), exact)
