"""Sums, roots and angles have the bits that IEEE 754 gives them, whatever torch's own have on this processor."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from evohydra.merging.kernels.exact import added, added_in_order, arccosine, cosine, exponential_less_one, root, sine

# Angles up to some turns, close to multiples of pi / 2 and close to 0; cosines of all sizes and close to the ends.
ANGLES = [k * math.pi / 8 + d for k in range(-20, 40) for d in (0.0, 1e-9, -1e-4, 0.3)] + [1e-12, -3e-300, 12345.678]
KNOWN = [
    "0x1.49d6e694619b8p-1",
    "0x1.e9fb8d64830e2p-3",
    "-0x1.38f2fa75d9289p-2",
    "0x1.87996529f9d93p-1",
    "-0x1.f1216dba340c9p-1",
    "-0x1.e780e88ec4409p-1",
    "0x1.441f5ecbeef58p+0",
    "0x1.586476251e745p+1",
    "0x1.72ba46065af18p-10",
]
COSINES = [*np.linspace(-1, 1, 401), 1 - 1e-12, -1 + 1e-12, 1e-9, -1e-300, 1 - 2**-53]

EXPONENTS = [*np.linspace(-700, 700, 401), *np.linspace(-2, 2, 401), 0.0, 1e-9, -1e-300, 1e-6, math.log(2) / 2, 40.0]


@pytest.mark.parametrize(
    ("ours", "known", "values"), [(sine, math.sin, ANGLES), (cosine, math.cos, ANGLES), (arccosine, math.acos, COSINES)]
)
def test_angles(ours, known, values):
    precise = ours(torch.tensor(values, dtype=torch.float64))
    expected = torch.tensor([known(value) for value in values], dtype=torch.float64)
    assert (precise - expected).abs().max() <= 4 * 2.0**-53 * expected.abs().max()
    assert torch.allclose(precise, expected, rtol=1e-13, atol=1e-15)
    short = torch.tensor(values, dtype=torch.float32)
    assert torch.equal(ours(short), torch.tensor([known(value) for value in short.tolist()], dtype=torch.float32))
    assert ours(short.to(torch.bfloat16)).dtype == torch.bfloat16


def test_angles_have_known_bits():
    """Of one processor's numbers; they are the same on all."""
    found = [float(f(torch.tensor([x], dtype=torch.float64))).hex() for f in (sine, cosine) for x in (0.7, 2.9, 1e4)]
    found += [float(arccosine(torch.tensor([x], dtype=torch.float64))).hex() for x in (0.3, -0.9, 0.999999)]
    assert found == KNOWN


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_roots_are_rounded_once(dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2000, generator=generator, dtype=torch.float64).to(dtype) * 1000
    for value, found in zip(values, root(values), strict=True):
        below, above = (Fraction(float(torch.nextafter(found, torch.tensor(end, dtype=dtype)))) for end in (0.0, 1e9))
        middle = Fraction(float(found))
        assert ((below + middle) / 2) ** 2 < Fraction(float(value)) < ((above + middle) / 2) ** 2
    assert math.isnan(root(torch.tensor([-1.0], dtype=dtype)))


def test_sums_have_one_order():
    x = torch.tensor([[1.0, 1e-16, -1.0, 1e-16, 2.0]], dtype=torch.float64)
    assert added(x).tolist() == [((1.0 + 1e-16) + 2.0) + (1e-16 - 1.0)]
    assert added(torch.zeros(3, 0)).tolist() == [0.0, 0.0, 0.0]
    many = torch.randn(7, 1001, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(added(many), many.sum(dim=-1), rtol=1e-13)
    three = [0.1, 0.7, -0.3]
    assert added_in_order(torch.tensor(three, dtype=torch.float64)).item() == (0.1 + 0.7) + -0.3


def test_exponentials():
    precise = exponential_less_one(torch.tensor(EXPONENTS, dtype=torch.float64))
    expected = torch.tensor([math.expm1(value) for value in EXPONENTS], dtype=torch.float64)
    assert torch.allclose(precise, expected, rtol=4 * 2.0**-53, atol=0)
    found = [float(exponential_less_one(torch.tensor([x], dtype=torch.float64))).hex() for x in (0.7, -2.9, 1e-5, 33.3)]
    assert found == [math.expm1(x).hex() for x in (0.7, -2.9, 1e-5, 33.3)]
    short = torch.tensor([0.7, 1e-20, -80.0])
    assert torch.equal(exponential_less_one(short), torch.tensor([math.expm1(x) for x in short.tolist()]))
