"""Sums, roots, angles and exponentials whose bits are the same on every processor.

IEEE 754 says how sums, products, quotients and roots of numbers round. It does not say in which order a long sum is
taken, nor how sines and exponentials round, and libraries differ in both from one processor to the next. torch's roots
differ too: MKL's are wrong in the last bit on some processors. So sums have one order here, and the rest is made of
what IEEE 754 says.
"""

import functools
import math
import operator
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evohydra.merging.kernels.arithmetic import wide

Floats = NDArray[np.float64]
# pi / 2 in three parts, of which the first two have 33 bits: their products with small whole numbers are exact.
LOG_2 = (float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33"))  # the first part has 32 bits
HALF_PI = (float.fromhex("0x1.921fb544p+0"), float.fromhex("0x1.0b4611a6p-34"), float.fromhex("0x1.3198a2e037073p-69"))


def added(x: Tensor) -> Tensor:
    """The sums over the last index, folded in the middle again and again."""
    if not x.shape[-1]:
        return x.sum(dim=-1)
    while (width := x.shape[-1]) > 1:
        half = (width + 1) // 2
        folded = x[..., :half].clone()
        folded[..., : width - half] += x[..., half:]
        x = folded
    return x[..., 0]


def added_in_order(x: Tensor) -> Tensor:
    """The sum of a few numbers, (n,), from the first to the last, rounded to their type once."""
    total: Tensor = functools.reduce(operator.add, wide(x).unbind())
    return total.to(x.dtype)


def root(x: Tensor) -> Tensor:
    """The square roots as IEEE 754 rounds them, in the type of `x`; kernels (see `fused`) may use it but in float64."""
    if x.device.type != "cpu":
        return x.sqrt()  # CUDA's are
    if x.dtype != torch.float64:
        # No root of 24 bits is so near the middle between two numbers of 24 bits that float64's last bit matters.
        return x.to(torch.float64).sqrt().to(wide(x).dtype).to(x.dtype)
    with np.errstate(invalid="ignore"):
        return torch.as_tensor(np.sqrt(x.numpy()))


def sine(x: Tensor) -> Tensor:
    """Sines of angles up to 10^5, in the type of `x`."""
    return _rounded(lambda angle: _quadrants(angle)[0], x)


def cosine(x: Tensor) -> Tensor:
    """Cosines of angles up to 10^5, in the type of `x`."""
    return _rounded(lambda angle: _quadrants(angle)[1], x)


def arccosine(x: Tensor) -> Tensor:
    """The angles, from 0 to pi, of cosines from -1 to 1, in the type of `x`."""
    return _rounded(_arccosine, x)


def exponential_less_one(x: Tensor) -> Tensor:
    """e^x - 1 of numbers from -700 to 700, in the type of `x`."""
    return _rounded(_exponential_less_one, x)


def _rounded(function: Callable[[Floats], Floats], x: Tensor) -> Tensor:
    with np.errstate(all="ignore"):
        made = torch.as_tensor(function(x.to("cpu", torch.float64).numpy()))
    return made.to(wide(x).dtype).to(x.device, x.dtype)


def _quadrants(x: Floats) -> tuple[Floats, Floats]:
    """Sine and cosine, by their series around the nearest multiple of pi / 2."""
    count = np.rint(x * (2 / math.pi))
    rest = ((x - count * HALF_PI[0]) - count * HALF_PI[1]) - count * HALF_PI[2]
    square = rest * rest
    odd = rest + rest * square * _series([(-1) ** k / math.factorial(2 * k + 1) for k in range(1, 10)], square)
    half = 0.5 * square
    even = 1 - half
    even = even + (
        ((1 - even) - half)
        + square * square * _series([(-1) ** k / math.factorial(2 * k) for k in range(2, 10)], square)
    )
    which = np.mod(count, 4)
    sines = np.select([which == 0, which == 1, which == 2], [odd, even, -odd], -even)
    cosines = np.select([which == 0, which == 1, which == 2], [even, -odd, -even], odd)
    return sines, cosines


def _arccosine(x: Floats) -> Floats:
    """Twice the angle whose tangent is sqrt(1 - x) / sqrt(1 + x); three times halved its series is short."""
    tangent = np.sqrt((1 - x) / (1 + x))
    steep = tangent > 1
    tangent = np.where(steep, 1 / tangent, tangent)
    for _ in range(3):
        tangent = tangent / (1 + np.sqrt(1 + tangent * tangent))
    square = tangent * tangent
    angle = 8 * (tangent + tangent * square * _series([(-1) ** k / (2 * k + 1) for k in range(1, 10)], square))
    whole: Floats = 2 * np.where(steep, math.pi / 2 - angle, angle)
    return whole


def _exponential_less_one(x: Floats) -> Floats:
    """2^k e^r - 1 with the r that is nearest to 0."""
    count = np.rint(x / math.log(2))
    rest = (x - count * LOG_2[0]) - count * LOG_2[1]
    grown = rest + rest * rest * _series([1 / math.factorial(k) for k in range(2, 15)], rest)
    power = np.ldexp(1.0, count.astype(np.int64))
    less: Floats = power * grown + (power - 1)
    return less


def _series(coefficients: list[float], x: Floats) -> Floats:
    total: Floats = np.full_like(x, coefficients[-1])
    for each in reversed(coefficients[:-1]):
        total = total * x + each
    return total
