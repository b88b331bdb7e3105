"""Kernels: the entry-by-entry part of a merge method, one pass over memory, eager or compiled with the same bits."""

import bisect
import functools
import itertools
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from evohydra.merging.kernels.arithmetic import rounded, wide
from evohydra.merging.kernels.compilation import WORTH_COMPILED, compiled
from evohydra.merging.kernels.native import Step

Kernel = Callable[..., Tensor]
Signature = tuple[tuple[bool, int], ...]  # of numbers: whether they are integers, how many
EAGER_BLOCK = 2**16  # entries: what an eager kernel makes on the way stays in the processor's cache
COMPILED_BLOCK = 2**22  # entries: what was written is still near when it is looked at
DEVICE_BLOCK = 2**30  # entries: positions in a block are int32
_peak: ContextVar[float | None] = ContextVar("peak", default=None)


class NotFinite(ArithmeticError):  # noqa: N818  (what the result is)
    """A kernel whose result holds NaN or infinite numbers."""


@dataclass(frozen=True)
class Stepped:
    """Numbers that change along a tensor: values[i] hold from flat index starts[i] on; starts[0] is 0."""

    starts: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]

    def at(self, place: int) -> tuple[float, ...]:
        """The numbers at flat index `place`."""
        return self.values[bisect.bisect_right(self.starts, place) - 1]


Numbers = Sequence[float] | Stepped


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


@contextmanager
def largest_entry(peak: float | None) -> Iterator[None]:
    """Within: no entry of base and models is larger than `peak`, if that is known."""
    token = _peak.set(peak)
    try:
        yield
    finally:
        _peak.reset(token)


def fused(kernel: Kernel) -> Callable[..., Tensor]:
    """Make `kernel(entries, *numbers, **flags) -> (n,)` a function of whole tensors.

    The function is `merge(base, models, *numbers, extras=(), out=None, bounded=False, **flags)`: `base`, `models` and
    `extras` have one shape, `numbers` are sequences of floats or of ints, which reach the kernel as tensors (a
    `Stepped` at each part of the tensor as it is there), and flags are constants of the kernel. The result has the
    shape, type and device of the models, and is written into `out` where that is given. Raises NotFinite.

    `bounded` says that the kernel makes nothing larger than the largest entry times (4 * product of 1 + sum |v| over
    the numbers)^2: where that is far from infinity, and the largest entry known, the result is not looked at.
    """

    @functools.wraps(kernel)
    def merge(
        base: Tensor | None,
        models: Sequence[Tensor],
        *numbers: Numbers,
        extras: Sequence[Tensor] = (),
        out: Tensor | None = None,
        bounded: bool = False,
        **flags: object,
    ) -> Tensor:
        result = torch.empty_like(models[0], memory_format=torch.contiguous_format) if out is None else out
        inputs = [x.reshape(-1) for x in (*((base,) if base is not None else ()), *models, *extras)]
        target = result.view(-1)
        size = target.shape[0]
        kinds = [_are_integers(_at(values, 0)) for values in numbers]
        layout = tuple((kind, len(_at(values, 0))) for kind, values in zip(kinds, numbers, strict=True))
        step = _step(kernel, base is not None, len(models), layout, tuple(flags.items()))
        quick = compiled(step, inputs, lambda: _packed(numbers, kinds, 0, target), target)
        block = DEVICE_BLOCK if target.device.type != "cpu" else COMPILED_BLOCK if quick else EAGER_BLOCK
        changes = {start for values in numbers if isinstance(values, Stepped) for start in values.starts}
        edges = sorted({start for start in changes if start < size}.union(range(0, size, block)))
        safe = bounded and _bound(numbers, kinds) < torch.finfo(target.dtype).max / 2
        for start, stop in itertools.pairwise([*edges, size]):
            one = step if quick is None or stop - start < WORTH_COMPILED else quick
            packed, part = _packed(numbers, kinds, start, target), target
            if stop - start == size:
                one(inputs, *packed, target)
            else:
                part = target[start:stop]
                one([x[start:stop] for x in inputs], *packed, part)
            if not safe and not is_finite(part):
                raise NotFinite(f"the result of {kernel.__name__} is not finite")
        return result

    return merge


def _bound(numbers: Sequence[Numbers], integers: Sequence[bool]) -> float:
    """What a bounded kernel can make at most; infinity where the largest entry is not known."""
    peak = _peak.get()
    if peak is None:
        return math.inf
    for values, integer in zip(numbers, integers, strict=True):
        if not integer:
            peak *= 4 * (1 + sum(map(abs, _at(values, 0)))) ** 2
    return 16 * peak


def is_finite(x: Tensor) -> bool:
    """Whether all of `x` is finite. Its sum is cheap, and finite unless an element is not or all together overflow."""
    return math.isfinite(x.sum().item()) or bool(x.isfinite().all())


def _at(values: Numbers, place: int) -> Sequence[float]:
    return values.at(place) if isinstance(values, Stepped) else values


def _are_integers(values: Sequence[float]) -> bool:
    return all(isinstance(value, int) for value in values)


def _packed(numbers: Sequence[Numbers], kinds: Sequence[bool], place: int, target: Tensor) -> tuple[Tensor, Tensor]:
    """All floats and all integers, each end to end behind one of no meaning and behind flat index `place`."""
    floats: list[float] = [0.0]
    integers = [(place + 2**31) % 2**32 - 2**31]
    for values, integer in zip(numbers, kinds, strict=True):
        (integers if integer else floats).extend(_at(values, place))  # type: ignore[arg-type]
    # Over arrays, which take a tenth of the time of torch.tensor.
    made = (
        torch.frombuffer(array("d", floats), dtype=torch.float64)
        if target.dtype == torch.float64
        else torch.frombuffer(array("f", floats), dtype=torch.float32),
        torch.frombuffer(array("i", integers), dtype=torch.int32),
    )
    return made if target.device.type == "cpu" else (made[0].to(target.device), made[1].to(target.device))


@functools.cache
def _step(kernel: Kernel, has_base: bool, count: int, layout: Signature, flags: tuple[tuple[str, object], ...]) -> Step:
    """The kernel on flat tensors, written into `target`."""
    sizes = {kind: [1, *(size for integer, size in layout if integer is kind)] for kind in (False, True)}

    def step(inputs: list[Tensor], floats: Tensor, integers: Tensor, target: Tensor) -> None:
        base, others = (inputs[0], inputs[1:]) if has_base else (None, inputs)
        parts = {False: list(torch.split(floats, sizes[False])), True: list(torch.split(integers, sizes[True]))}
        parts[False].pop(0)
        first = parts[True].pop(0)
        numbers = [parts[integer].pop(0) for integer, _ in layout]
        target.copy_(kernel(Entries(base, others[:count], others[count:], first), *numbers, **dict(flags)))

    # Dynamo counts the versions of a function by its code: each kernel gets a copy.
    step.__code__ = step.__code__.replace(co_name=f"{kernel.__name__}_of_{count}")
    return step
