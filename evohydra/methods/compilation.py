"""Compiled kernels: `torch.compile`, held against the eager kernel before it is used, and called with little ado."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
# A kernel on flat tensors: inputs, all its floats, all its integers, and where the result is written.
Step = Callable[[list[Tensor], Tensor, Tensor, Tensor], None]
WORTH_COMPILED = 2**8  # entries: what is less is done eagerly
PROOF = 7 * 2**9  # entries on which a compiled kernel is held against the eager one; no other number that it gets
_compiling: ContextVar[bool] = ContextVar("compiling", default=False)
_compiled: dict[object, Step | None] = {}
_warned: list[str] = []


@contextmanager
def compiling(wanted: bool) -> Iterator[None]:
    """Whether kernels inside are compiled (where a compiler is there)."""
    token = _compiling.set(wanted)
    try:
        yield
    finally:
        _compiling.reset(token)


def compiled(step: Step, inputs: Sequence[Tensor], numbers: tuple[Tensor, Tensor], target: Tensor) -> Step | None:
    """`step` compiled, where that is wanted, worth it and possible."""
    if not _compiling.get() or target.shape[0] < WORTH_COMPILED:
        return None
    key = (step, target.dtype, target.device.type)
    if key not in _compiled:
        _compiled[key] = _proven(step, inputs, numbers, target)
    return _compiled[key]


def _proven(step: Step, inputs: Sequence[Tensor], numbers: tuple[Tensor, Tensor], target: Tensor) -> Step | None:
    """`step` compiled, or None (with a warning, once) where there is no compiler or it gives other bits."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path.home() / ".cache" / "evohydra" / "kernels"))
    # Repeated to a length that no tensor's shape is a special case of.
    pieces = [x[:PROOF].repeat(-(-PROOF // x[:PROOF].shape[0]))[:PROOF] for x in inputs]
    expected, got = (torch.zeros(PROOF, dtype=target.dtype, device=target.device) for _ in range(2))
    try:
        from torch._inductor import config as inductor

        # Roundings that a kernel asks for are kept, and no product is fused with a sum: compiled bits are eager bits.
        # Set for all of the process: as an option of one compilation it costs as much as a small merge at every call.
        inductor.emulate_precision_casts = True
        graphs: list[Any] = []
        quick: Step = torch.compile(step, dynamic=True, backend=_keeping(graphs))
        quick(pieces, *numbers, got)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ImportError, OSError) as reason:
        _warn_once(f"kernels are not compiled, merging is slower: {str(reason).strip().splitlines()[0]}")
        return None
    step(pieces, *numbers, expected)
    if not _same(got, expected):
        _warn_once(f"the compiled kernel {step.__code__.co_name} gives other bits and is not used")
        return None
    if target.device.type == "cpu":
        direct = _direct(quick, graphs, pieces, numbers, got)
        if direct is not None:
            direct(pieces, *numbers, got.zero_())
            return direct if _same(got, expected) else quick
    return quick


def _keeping(graphs: list[Any]) -> Callable[[Any, Any], Any]:
    """torch's usual compiler, which leaves what it has compiled in `graphs`."""

    def backend(graph: Any, examples: Any) -> Any:
        from torch._functorch import config as functorch
        from torch._inductor.compile_fx import compile_fx, compile_fx_inner

        def inner(*arguments: Any, **settings: Any) -> Any:
            graphs.append(compile_fx_inner(*arguments, **settings))
            return graphs[-1]

        with functorch.patch(enable_autograd_cache=False):  # a hit there would go past `inner`
            return compile_fx(graph, examples, inner_compile=inner)

    return backend


def _direct(
    quick: Step, graphs: Sequence[Any], inputs: list[Tensor], numbers: tuple[Tensor, Tensor], target: Tensor
) -> Step | None:
    """The code in the one of `graphs` without the guards around it, which take longer than a small tensor's merge.

    torch has no public way to it: None where the private one has changed. `quick` is called once, to see how it calls.
    """
    calls: list[list[Any]] = []
    try:
        (graph,) = graphs
        code = graph.current_callable

        def recording(arguments: list[Any]) -> Any:
            calls.append(list(arguments))
            return code(arguments)

        graph.current_callable = recording
        quick(inputs, *numbers, target)
        (call,) = calls
        given = [*inputs, *numbers, target]
        # Of its arguments, integers are lengths; the tensors are ours, in an order of its own.
        lengths = [argument if isinstance(argument, int) else None for argument in call]
        places = [None if isinstance(argument, int) else _place(given, argument) for argument in call]
    except (AttributeError, TypeError, ValueError, RuntimeError) as reason:
        logger.debug("compiled kernels are called through their guards: %s", reason)
        return None

    def direct(inputs: list[Tensor], floats: Tensor, integers: Tensor, target: Tensor) -> None:
        given = (*inputs, floats, integers, target)
        size = target.shape[0]
        code(
            [
                given[place] if place is not None else size if length == PROOF else length
                for place, length in zip(places, lengths, strict=True)
            ]
        )

    return direct


def _place(tensors: Sequence[Tensor], wanted: Tensor) -> int:
    """Where in `tensors` the one is that shares its memory with `wanted`; ValueError where there is none."""
    return [tensor.data_ptr() for tensor in tensors].index(wanted.data_ptr())


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.append(message)
        logger.warning(message)
