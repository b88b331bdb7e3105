"""Numbers as they are stored: merging rounds where mergekit rounds, in the type of the checkpoints."""

import functools
from array import array
from collections.abc import Sequence

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """`x` in the type of the arithmetic: float64 for float64, else float32."""
    return x if x.dtype == torch.float64 else x.to(torch.float32)


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x`, float32, to the nearest number of `dtype` (ties to even), still float32; as it is for types no shorter.

    For bfloat16 on a CPU by Veltkamp's splitting (T. J. Dekker 1971, section 5), three operations that compilers
    vectorize where a conversion takes a dozen. Numbers below 2^-126 keep more bits than bfloat16 has for them there,
    those above 2^111 become NaN.
    """
    if dtype.itemsize >= x.dtype.itemsize:
        return x
    if dtype == torch.bfloat16 and x.device.type == "cpu":
        split = x * 65537.0  # 2^16 + 1: 24 bits of float32 less the 8 of bfloat16
        return split + (x - split)
    return x.to(dtype).to(x.dtype)


def multiply_add(x: Tensor, factor: Tensor, start: Tensor) -> Tensor:
    """x * factor + start, float32, rounded once as a fused multiply-add does on processors that have one.

    By the error-free transformations of product (Dekker 1971) and sum (Knuth): what the rounding of both has lost is
    added at the end. `factor` is (), the others have one shape.
    """
    high, factor_high = (4097.0 * y - (4097.0 * y - y) for y in (x, factor))  # 2^12 + 1: halves of 12 bits
    low, factor_low = x - high, factor - factor_high
    product = x * factor
    lost = ((high * factor_high - product) + high * factor_low + low * factor_high) + low * factor_low
    total = product + start
    part = total - product
    return total + (((product - (total - part)) + (start - part)) + lost)


def stored(values: Sequence[float], dtype: torch.dtype) -> list[float]:
    """Each number as `dtype` holds it: mergekit keeps weights in the type of the tensors."""
    return list(_stored(array("d", values).tobytes(), dtype))


@functools.lru_cache(maxsize=1024)
def _stored(values: bytes, dtype: torch.dtype) -> tuple[float, ...]:
    """The same for float64 numbers, by their bits: those of a group come again with each of its tensors."""
    return tuple(map(float, torch.tensor(array("d", values).tolist(), dtype=dtype).tolist()))
