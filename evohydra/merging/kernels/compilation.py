"""Compiled kernels: a loop in C++ or `torch.compile`, held against the eager kernel before it is used."""

import logging
import math
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from torch import Tensor

from evohydra.merging.kernels.loops import NotALoop
from evohydra.merging.kernels.native import Step, loop, there_is_a_compiler
from evohydra.merging.kernels.private_files import private_directory
from evohydra.merging.private_torch import keep_roundings

logger = logging.getLogger(__name__)
WORTH_COMPILED = 2  # entries: one alone would be another case to torch.compile
PROOF = 7 * 2**9  # entries on which a compiled kernel is held against the eager one; no other number that it gets
WORTH_COMPILING = 2 * 10**8  # elements merged in all: compiling pays from here on
CALL = 3 * 10**4  # elements that are merged eagerly in the time that one tensor's calls take
_compiling: ContextVar[bool] = ContextVar("compiling", default=False)
_compiled: dict[object, Step | None] = {}
_warned: list[str] = []


def worth_compiling(shapes: Mapping[str, tuple[int, ...]], merges: int) -> bool:
    """Whether so many merges of tensors of these shapes take longer than compiling their kernels."""
    return merges * sum(CALL + math.prod(shape) for shape in shapes.values()) >= WORTH_COMPILING


@contextmanager
def compiling(wanted: bool) -> Iterator[None]:
    """Whether kernels inside are compiled (where a compiler is there)."""
    token = _compiling.set(wanted)
    try:
        yield
    finally:
        _compiling.reset(token)


def compiled(
    step: Step, inputs: Sequence[Tensor], numbers: Callable[[], tuple[Tensor, Tensor]], target: Tensor
) -> Step | None:
    """`step` compiled, where that is wanted, worth it and possible."""
    if not _compiling.get() or target.shape[0] < WORTH_COMPILED:
        return None
    if not all(x.is_contiguous() for x in (*inputs, target)):
        return None
    key = (step, target.device.type, target.dtype, *(x.dtype for x in inputs))
    if key not in _compiled:
        _compiled[key] = _proven(step, inputs, numbers(), target)
    return _compiled[key]


def _proven(step: Step, inputs: Sequence[Tensor], numbers: tuple[Tensor, Tensor], target: Tensor) -> Step | None:
    """`step` compiled, or None (with a warning, once) where there is no compiler or it gives other bits.

    Raises UntrustedDirectoryError where others could have put code into the directory of kernels.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path.home() / ".cache" / "evohydra" / "compiled"))
    if target.device.type == "cpu" and not there_is_a_compiler():  # torch.compile would need one, too
        _warn_once("kernels are not compiled, merging is slower: found no C++ compiler (g++, or what CXX names)")
        return None
    try:
        private_directory(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]))  # torch.compile loads what is there, too
    except OSError as error:
        _warn_once(f"kernels are not compiled, merging is slower: {error}")
        return None
    # Repeated to a length that no tensor's shape is a special case of.
    pieces = [x[:PROOF].repeat(-(-PROOF // x[:PROOF].shape[0]))[:PROOF] for x in inputs]
    expected, got = (torch.zeros(PROOF, dtype=target.dtype, device=target.device) for _ in range(2))
    step(pieces, *numbers, expected)
    for compiler in (_loop, _inductor) if target.device.type == "cpu" else (_inductor,):
        quick = compiler(step, pieces, numbers, got)
        if quick is not None:
            quick(pieces, *numbers, got)
            if _same(got, expected):
                return quick
            _warn_once(f"the compiled kernel {step.__code__.co_name} gives other bits and is not used")
    return None


def _loop(step: Step, inputs: list[Tensor], numbers: tuple[Tensor, Tensor], target: Tensor) -> Step | None:
    try:
        return loop(step, inputs, numbers, target)
    except torch.OutOfMemoryError:
        raise
    except (NotALoop, RuntimeError, OSError, subprocess.CalledProcessError) as reason:
        logger.debug("%s is left to torch.compile: %s", step.__code__.co_name, reason)
        return None


def _inductor(step: Step, inputs: list[Tensor], numbers: tuple[Tensor, Tensor], target: Tensor) -> Step | None:
    try:
        # Roundings that a kernel asks for are kept, and no product is fused with a sum: compiled bits are eager bits.
        # Set for all of the process: as an option of one compilation it costs as much as a small merge at every call.
        keep_roundings()
        quick: Step = torch.compile(step, dynamic=True)
        quick(inputs, *numbers, target)  # compiles
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ImportError, OSError) as reason:
        _warn_once(f"kernels are not compiled, merging is slower: {str(reason).strip().splitlines()[0]}")
        return None
    return quick


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.append(message)
        logger.warning(message)
