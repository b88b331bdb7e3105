"""Loops in C++ (see `loops`), built for this processor, kept in the directory of kernels and called by address."""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evohydra.merging.kernels.loops import source
from evohydra.merging.kernels.private_files import keep, kept_file, private_directory

# A kernel on flat tensors: inputs, all its floats, all its integers, and where the result is written.
Step = Callable[[list[Tensor], Tensor, Tensor, Tensor], None]
# No product is fused with a sum, and integers overflow as they do in torch. Error numbers, traps and jumps from one
# choice to the next would keep a loop from being vectorized, or its masks from staying masks.
FLAGS = [
    *("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp"),
    *("-ffp-contract=off", "-fwrapv", "-fno-math-errno", "-fno-trapping-math", "-fno-thread-jumps"),
]
WIDE = {"x86_64": ["-mprefer-vector-width=512"], "AMD64": ["-mprefer-vector-width=512"]}
PARALLEL = 2**15  # entries for each thread at least


def loop(step: Step, inputs: Sequence[Tensor], numbers: tuple[Tensor, Tensor], target: Tensor) -> Step:
    """`step` as a loop for tensors of these types.

    Raises NotALoop; OSError or CalledProcessError without a compiler; UntrustedDirectoryError where others could have
    put code into the directory of kernels.
    """
    kinds = [x.dtype for x in inputs]
    function = _built(source(step, kinds, [len(x) for x in numbers], target.dtype))
    function.argtypes = [ctypes.c_void_p] * (len(kinds) + 3) + [ctypes.c_int64] * 2
    function.restype = None

    def run(inputs: list[Tensor], floats: Tensor, integers: Tensor, target: Tensor) -> None:
        size = target.shape[0]
        threads = max(1, min(torch.get_num_threads(), size // PARALLEL))
        function(
            *[x.data_ptr() for x in inputs], floats.data_ptr(), integers.data_ptr(), target.data_ptr(), size, threads
        )

    return run


def _built(code: str) -> Any:
    """The function in `code`, from the directory of kernels where it was compiled before."""
    command, defined = compiler()
    flags = [*FLAGS, *WIDE.get(platform.machine(), [])]
    if "__AVX512FP16__" in defined:
        flags.append("-mno-avx512fp16")  # in which gcc converts one number at a time
    digest = hashlib.sha256("\0".join((defined, code, *flags)).encode()).hexdigest()[:32]
    directory = private_directory(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]))
    library = kept_file(directory, f"loop-{digest}", ".so")
    if library is None:
        with tempfile.TemporaryDirectory(dir=directory) as temporary:
            written, made = Path(temporary, "loop.cpp"), Path(temporary, "loop.so")
            written.write_text(code)
            subprocess.run(
                [*command, *flags, "-o", str(made), str(written)], check=True, capture_output=True, text=True
            )
            library = keep(made, directory, f"loop-{digest}", ".so")
    return ctypes.CDLL(str(library)).loop


def there_is_a_compiler() -> bool:
    """Whether one can be called at all."""
    try:
        compiler()
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


@functools.cache
def compiler() -> tuple[list[str], str]:
    """The compiler, and what it defines on this processor: its version and which instructions there are."""
    command = shlex.split(os.environ.get("CXX", "g++"))
    asked = [*command, "-march=native", "-x", "c++", "-E", "-dM", os.devnull]
    return command, subprocess.run(asked, check=True, capture_output=True, text=True).stdout
