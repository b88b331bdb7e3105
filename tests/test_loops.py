"""Kernels written in C++: each operation gives torch's bits, and what is not written there is left to torch.compile.

Roots have the bits of IEEE 754, which torch's own have on some processors only.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from evohydra.merging.kernels import compilation, fused
from evohydra.merging.kernels.compilation import compiling
from evohydra.merging.kernels.exact import root
from evohydra.merging.kernels.fused import Entries
from evohydra.merging.kernels.loops import NotALoop
from evohydra.merging.kernels.native import loop

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.3, -2.5, 1e-39, -1e-44, 1e38, math.inf, -math.inf, math.nan, 65504.0, 3.3895e38]
DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "arithmetic": lambda x, y, w, n: (x + y) - x * w[1] / (2 - y) + -x * w[0],
    "roots": lambda x, y, w, n: x.abs().sqrt() + 1 / y,
    "roots of float64": lambda x, y, w, n: root(x.abs()) if x.dtype == torch.float32 else y,
    "signs": lambda x, y, w, n: torch.sign(x) * w[0] + torch.sign(y),
    "largest": lambda x, y, w, n: torch.maximum(x, y),
    "smallest": lambda x, y, w, n: torch.minimum(x, y),
    "ends": lambda x, y, w, n: x.clamp(min=-1.0) + y.clamp(max=0.5) + x.clamp(0.0, 1.0),
    "choices": lambda x, y, w, n: torch.where(torch.where(x > y, x >= 0, ~(y != x)), x, w[1]),
    "masks": lambda x, y, w, n: torch.where((x < 1) & (y <= 1) | (x == y) ^ (y > 0), x * (x > 0), -math.inf),
    "integers": lambda x, y, w, n: ((torch.arange(len(x), dtype=torch.int32) * n[0] ^ n[1]) >> 3).to(x.dtype) + x,
    "types": lambda x, y, w, n: x.to(torch.bfloat16).to(torch.float32) + y.to(torch.float16).to(torch.float32),
}


def ieee_root(x: Tensor) -> Tensor:
    with np.errstate(invalid="ignore"):
        return torch.as_tensor(np.sqrt(x.numpy()))


def bits(x: Tensor) -> Tensor:
    """Of NaN there is one."""
    return x.nan_to_num(12345.0).view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.dtype.itemsize])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_loop_gives_the_bits_of_torch(kernel: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))

    def step(inputs: list[Tensor], floats: Tensor, integers: Tensor, target: Tensor) -> None:
        wide = [x.to(torch.promote_types(x.dtype, torch.float32)) for x in inputs]
        target.copy_(KERNELS[kernel](*wide, floats, integers))

    values = torch.tensor(SPECIAL, dtype=torch.float64).to(dtype)
    inputs = [values.repeat(len(values)), values.repeat_interleave(len(values))]
    floats = torch.tensor([0.7, -1.3], dtype=torch.promote_types(dtype, torch.float32))
    integers = torch.tensor([2**31 - 77, -12345], dtype=torch.int32)
    expected, got = (torch.zeros_like(inputs[0]) for _ in range(2))
    with monkeypatch.context() as patched:
        patched.setattr(Tensor, "sqrt", ieee_root)
        step(inputs, floats, integers, expected)
    loop(step, inputs, (floats, integers), got)(inputs, floats, integers, got)
    assert torch.equal(bits(got), bits(expected))


@pytest.mark.parametrize(
    "kernel",
    [
        lambda x, w: x.flip(0),
        lambda x, w: x * (w[:2] * w[2:4])[0],
        lambda x, w: x[0] + x,
        lambda x, w: x.exp(),
        lambda x, w: x + torch.tensor([0.5]),
        lambda x, w: x + x.sum(),
    ],
)
def test_what_is_no_loop(kernel: Callable[[Tensor, Tensor], Tensor]):
    def step(inputs: list[Tensor], floats: Tensor, integers: Tensor, target: Tensor) -> None:
        target.copy_(kernel(inputs[0], floats))

    x = torch.ones(5)
    with pytest.raises(NotALoop):
        loop(step, [x], (torch.ones(5), torch.ones(1, dtype=torch.int32)), x)


def test_what_is_no_loop_is_left_to_torch(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(compilation, "_compiled", {})
    monkeypatch.setattr(torch, "compile", lambda step, **_: asked.append(step) or step)

    @fused.fused
    def exponential(entries: Entries, floats: Tensor) -> Tensor:
        return entries.models[0].exp() * floats[0]

    with compiling(True):
        assert exponential(None, [torch.zeros(5000)], [2.0]).tolist() == [2.0] * 5000
    assert len(asked) == 1
