"""Kernels: the entry-by-entry part of a merge method in one pass over memory, eagerly or compiled, with the same bits."""

import functools
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evohydra.methods.arithmetic import rounded, wide

logger = logging.getLogger(__name__)
EAGER_BLOCK = 2**16  # entries: what an eager kernel makes on the way stays in the processor's cache
COMPILED_BLOCK = 2**30  # entries: positions in a block are int32
WORTH_COMPILED = 2**14  # entries: below this the call costs more than the work
PROOF = 2**12  # entries on which a compiled kernel is held against the eager one before it is used
# Roundings that a kernel asks for are kept, and no product is fused with a sum: compiled bits are eager bits.
OPTIONS = {"emulate_precision_casts": True, "cpp.enable_floating_point_contract_flag": "off"}

_compiling: ContextVar[bool] = ContextVar("compiling", default=False)
_compiled: dict[object, Callable[..., Tensor] | None] = {}
_warned: list[str] = []


class NotFinite(ArithmeticError):  # noqa: N818  (what the result is)
    """A kernel whose result holds NaN or infinite numbers."""


class Entries:
    """The same entries, (n,), of base, models and extras, as a kernel sees them: in the type of the arithmetic."""

    def __init__(self, base: Tensor | None, models: Sequence[Tensor], extras: Sequence[Tensor], first: Tensor) -> None:
        self.dtype = models[0].dtype
        self.base = wide(base) if base is not None else torch.zeros(())
        self.models = [wide(model) for model in models]
        self.extras = list(extras)
        self._first = first

    def rounded(self, x: Tensor) -> Tensor:
        """`x` as the checkpoints' type holds it."""
        return rounded(x, self.dtype)

    def task_vectors(self) -> list[Tensor]:
        """theta_k - theta_base, rounded."""
        return [self.rounded(model - self.base) for model in self.models]

    def positions(self) -> Tensor:
        """Where in the tensor each entry is, int32; modulo 2^32 in tensors that are larger."""
        like = self.models[0]
        return torch.arange(like.shape[0], dtype=torch.int32, device=like.device) + self._first


Kernel = Callable[..., Tensor]


@contextmanager
def compiling(wanted: bool) -> Iterator[None]:
    """Whether kernels inside are compiled (where a compiler is there)."""
    token = _compiling.set(wanted)
    try:
        yield
    finally:
        _compiling.reset(token)


def fused(kernel: Kernel) -> Callable[..., Tensor]:
    """Make `kernel(entries, *numbers, **flags) -> (n,)` a function of whole tensors.

    The function is `merge(base, models, *numbers, extras=(), out=None, **flags) -> Tensor`: `base` (or None), `models`
    and `extras` have one shape, `numbers` are sequences of floats or of ints, which reach the kernel as tensors, and
    flags are constants of the kernel. The result has the shape, type and device of the models, and is written into
    `out` where that is given. Raises NotFinite.
    """

    @functools.wraps(kernel)
    def merge(
        base: Tensor | None,
        models: Sequence[Tensor],
        *numbers: Sequence[float],
        extras: Sequence[Tensor] = (),
        out: Tensor | None = None,
        **flags: Any,
    ) -> Tensor:
        result = torch.empty_like(models[0], memory_format=torch.contiguous_format) if out is None else out
        inputs = [x.reshape(-1) for x in (*((base,) if base is not None else ()), *models, *extras)]
        target = result.view(-1)
        size = target.shape[0]
        packed = [_packed(values, wide(models[0][..., :0]).dtype, target.device) for values in numbers]
        step = _step(kernel, base is not None, len(models), tuple(sorted(flags.items())))
        block = EAGER_BLOCK if target.device.type == "cpu" else COMPILED_BLOCK
        if _compiling.get() and size >= WORTH_COMPILED:
            key = (step, inputs[0].dtype, target.device.type)
            if key not in _compiled:
                _compiled[key] = _proven(step, inputs, packed, target)
            if (quick := _compiled[key]) is not None:
                step, block = quick, COMPILED_BLOCK
        for start in range(0, size, block):
            first = torch.tensor([(start + 2**31) % 2**32 - 2**31], dtype=torch.int32, device=target.device)
            pieces = [x[start : start + block] for x in inputs]
            if not math.isfinite(step(pieces, first, packed, target[start : start + block]).item()):
                raise NotFinite(f"the result of {kernel.__name__} is not finite")
        return result

    return merge


def _packed(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    integers = all(isinstance(value, int) for value in values)
    return torch.tensor(values, dtype=torch.int32 if integers else dtype).to(device, non_blocking=True)


@functools.cache
def _step(kernel: Kernel, has_base: bool, count: int, flags: tuple[tuple[str, Any], ...]) -> Callable[..., Tensor]:
    """The kernel on one block of flat tensors, written into `target`; returns 0, or NaN where that is not finite."""

    def step(inputs: list[Tensor], first: Tensor, numbers: list[Tensor], target: Tensor) -> Tensor:
        base, others = (inputs[0], inputs[1:]) if has_base else (None, inputs)
        merged = kernel(Entries(base, others[:count], others[count:], first), *numbers, **dict(flags))
        if target.dtype == torch.float16:  # the only type that overflows long before float32 does
            merged = merged.to(torch.float16)
        target.copy_(merged)
        return (merged * 0.0).sum()

    # Dynamo counts the versions of a function by its code: each kernel gets a copy.
    step.__code__ = step.__code__.replace(co_name=f"{kernel.__name__}_of_{count}")
    return step


def _proven(
    step: Callable[..., Tensor], inputs: Sequence[Tensor], numbers: Sequence[Tensor], target: Tensor
) -> Callable[..., Tensor] | None:
    """`step` compiled, or None (with a warning, once) where there is no compiler or it gives other bits."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path.home() / ".cache" / "evohydra" / "kernels"))
    first = torch.zeros(1, dtype=torch.int32, device=target.device)
    pieces = [x[:PROOF].clone() for x in inputs]
    expected, got = (torch.zeros_like(target[:PROOF]) for _ in range(2))
    try:
        compiled: Callable[..., Tensor] = torch.compile(step, dynamic=True, options=OPTIONS)
        compiled(pieces, first, list(numbers), got)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ImportError, OSError) as reason:
        _warn_once(f"kernels are not compiled, merging is slower: {str(reason).strip().splitlines()[0]}")
        return None
    step(pieces, first, list(numbers), expected)
    if not torch.equal(got.nan_to_num(), expected.nan_to_num()):
        _warn_once(f"the compiled kernel {step.__code__.co_name} gives other bits and is not used")
        return None
    return compiled


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.append(message)
        logger.warning(message)
