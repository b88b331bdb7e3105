"""Norms and dots of whole tensors, of their rows or of their columns, as matrices with a line in each row.

Sums are taken in float64, in one order (see `exact`), and then rounded, so that they do not depend on the number of
threads or on the processor.
Those of mergekit are float32 sums, rounded the same way: with them in place of these, the methods here give its bits
(multislerp in float32 within rounding). In tensors of 10^6 entries they are wrong by up to 10^-4, differently for each
number of threads, which shifts whole results by a few units in the last place.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from evohydra.merging.kernels.arithmetic import wide
from evohydra.merging.kernels.exact import added, root

Line = Literal["whole", "rows", "columns"]  # a line is the tensor, what varies in its last index, or in its first
BLOCK = 2**20  # entries that are float64 at a time


def as_lines(x: Tensor, axis: Line) -> Tensor:
    """`x` as (lines, entries of a line); a scalar is one line of one entry."""
    x = x.reshape(1) if x.dim() == 0 else x
    if axis == "whole":
        return x.reshape(1, -1)
    turned = x if axis == "rows" else x.movedim(0, -1)
    width = turned.shape[-1]
    return turned.reshape(x.numel() // max(1, width), width)


def spacing(x: Tensor, axis: Line) -> int:
    """The number with which `at_lines` finds the line of an entry of `x`; ValueError above 2^31 entries."""
    if axis == "whole" or x.dim() == 0 or x.numel() == 0:
        return 1
    if x.numel() > 2**31:
        raise ValueError(f"expected at most 2^31 entries where each line has its own numbers, got {x.numel()}")
    return x.shape[-1] if axis == "rows" else x.numel() // x.shape[0]


def at_lines(values: Tensor, positions: Tensor, spaced: Tensor, axis: Line) -> Tensor:
    """Of `values`, (lines,), those of the lines of the entries at `positions`, (n,); (1,) for the whole tensor."""
    if axis == "whole":
        return values
    return values[positions // spaced if axis == "rows" else positions % spaced]


def norms(lines: Tensor) -> Tensor:
    """The length of each line, (lines,), in their type."""
    return root(_sums(lambda x: x.to(torch.float64).square(), lines)).to(lines.dtype)


def dots(first: Tensor, second: Tensor) -> Tensor:
    """The dot of each two lines, (lines,), in their type, to which each product is rounded as well."""
    return _sums(lambda x, y: (x * y).to(torch.float64), first, second).to(first.dtype)


def norm(x: Tensor) -> Tensor:
    """The length of `x`, (), float32 (float64 for float64)."""
    length = root(_sums(lambda x: x.to(torch.float64).square(), x.reshape(1, -1)))[0]
    return length.to(wide(x.new_empty(0)).dtype)


def dot(first: Tensor, second: Tensor) -> Tensor:
    """The dot of two flattened tensors, (), in their type; products are not rounded."""
    return precise_dot(first, second).to(first.dtype)


def precise_dot(first: Tensor, second: Tensor) -> Tensor:
    """The dot of two flattened tensors, (), float64."""
    return _sums(lambda x, y: x.to(torch.float64) * y, first.reshape(1, -1), second.reshape(1, -1))[0]


def squared_distance(first: Tensor, second: Tensor) -> float:
    """||first - second||^2."""
    whole = (first.reshape(1, -1), second.reshape(1, -1))
    return float(_sums(lambda x, y: (x.to(torch.float64) - y).square(), *whole).item())


def _sums(terms: Callable[..., Tensor], *lines: Tensor) -> Tensor:
    """Of each line the sum of its `terms`, (lines,), float64."""
    count, width = lines[0].shape
    rows = max(1, BLOCK // max(1, width))
    result = torch.zeros(count, dtype=torch.float64, device=lines[0].device)
    for top in range(0, count, rows):
        for left in range(0, width, BLOCK):
            result[top : top + rows] += added(terms(*(x[top : top + rows, left : left + BLOCK] for x in lines)))
    return result
