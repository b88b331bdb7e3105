"""Kernels: the same bits eagerly and compiled, in any block and with any number of threads, and without a compiler."""

import functools
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evohydra.merging.engine import Engine
from evohydra.merging.kernels import compilation, fused, native
from evohydra.merging.kernels.compilation import compiling
from evohydra.merging.kernels.fused import Entries, NotFinite
from evohydra.merging.methods.dare import dare_ties
from evohydra.merging.methods.linear import linear
from evohydra.merging.methods.sce import sce
from evohydra.merging.methods.ties import ties
from evohydra.recipe import Checkpoint, Group, Merge
from tests.contracts.test_methods import Memory

SIZE = 2**14 + 5
METHODS: dict[Any, dict[str, Any]] = {
    linear: {"weight": [0.3, 0.9]},
    ties: {"weight": [0.3, 0.9], "density": [0.2, 0.7], "scaling": 0.8},
    dare_ties: {"weight": [0.3, 0.9], "density": [0.2, 0.7], "streams": [-5, 2**31 - 1], "normalize": True},
    sce: {"select_topk": 0.4},
}


def tensors(dtype: torch.dtype, size: int = SIZE) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(4)
    base = torch.randn(size, generator=generator)
    return base.to(dtype), [(base + torch.randn(size, generator=generator) / 8).to(dtype) for _ in range(2)]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has compiled nothing yet."""
    monkeypatch.setattr(compilation, "_compiled", {})
    monkeypatch.setattr(compilation, "_warned", [])
    monkeypatch.setattr(native, "compiler", functools.cache(native.compiler.__wrapped__))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_compiled_kernels_give_the_bits_of_eager_ones(
    method: Any, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
):
    base, models = tensors(dtype)
    eager = method(base, models, **METHODS[method])
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            with compiling(True):
                out = torch.zeros_like(base)
                assert method(base, models, out=out, **METHODS[method]) is out
        finally:
            torch.set_num_threads(1)
        assert torch.equal(out, eager)
    assert any(step is not None for step in compilation._compiled.values())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("block", [7, 256, 10**9])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_blocks_change_nothing(method: Any, block: int, monkeypatch: pytest.MonkeyPatch):
    """Also where an entry's position counts: in random masks, and in which of equal entries are kept."""
    base, models = tensors(torch.bfloat16, 2000)
    whole = method(base, models, **METHODS[method])
    monkeypatch.setattr(fused, "EAGER_BLOCK", block)
    assert torch.equal(method(base, models, **METHODS[method]), whole)


def test_the_engine_merges_the_same_bits_compiled():
    base, models = tensors(torch.bfloat16)
    sources = {"base": Memory({"t": base}), "one": Memory({"t": models[0]}), "two": Memory({"t": models[1]})}
    names = (Checkpoint("one", "-"), Checkpoint("two", "-"))
    groups = (Group("all", ("t",), {"weight": (0.4, 0.8), "density": (0.3, 0.6)}),)
    recipe = Merge("ties", Checkpoint("base", "-"), names, groups)
    results = []
    for wanted in (False, True):
        engine = Engine(sources, device=torch.device("cpu"), dtype=torch.bfloat16, compile_kernels=wanted)
        live: Mapping[str, Tensor] = {"t": torch.zeros_like(base)}
        engine.merge_into(recipe, live)
        results.append(live["t"])
    assert torch.equal(*results)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("compiler", "why"),
    [("no-such-compiler", "found no C++ compiler (g++, or what CXX names)"), ("g++", "no compiler")],
    ids=["none", "one that fails"],
)
def test_without_a_compiler_there_is_one_warning_and_the_same_result(
    compiler: str, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler\nlong explanation")

    base, models = tensors(torch.float32)
    expected = linear(base, models, **METHODS[linear])
    monkeypatch.setattr(torch, "compile", no_compiler)
    monkeypatch.setattr(compilation, "loop", no_compiler)
    monkeypatch.setenv("CXX", compiler)
    with caplog.at_level(logging.WARNING), compiling(True):
        for method, given in METHODS.items():
            result = method(base, models, **given)
            assert method is not linear or torch.equal(result, expected)
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == [f"kernels are not compiled, merging is slower: {why}"]


@pytest.mark.usefixtures("fresh")
def test_a_compiled_kernel_with_other_bits_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    base, models = tensors(torch.float32)
    expected = linear(base, models, **METHODS[linear])
    wrong = lambda *_, **__: lambda inputs, floats, integers, target: target.fill_(1.0)  # noqa: E731
    monkeypatch.setattr(torch, "compile", wrong)
    monkeypatch.setattr(compilation, "loop", wrong)
    with caplog.at_level(logging.WARNING), compiling(True):
        assert torch.equal(linear(base, models, **METHODS[linear]), expected)
    assert "gives other bits and is not used" in caplog.text


def test_a_machine_without_a_c_compiler(tmp_path: Path):
    """For real, in a process of its own."""
    code = (
        "import logging, torch; logging.basicConfig(format='%(message)s')\n"
        "from evohydra.merging.kernels.compilation import compiling\n"
        "from evohydra.merging.methods.linear import linear\n"
        "x = [torch.arange(5000.0), torch.ones(5000)]\n"
        "with compiling(True): result = linear(None, x, weight=[1.0, 3.0])\n"
        "print(torch.equal(result, linear(None, x, weight=[1.0, 3.0])))\n"
    )
    environment = {**os.environ, "CXX": str(tmp_path / "no-such-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n"
    assert done.stderr.count("kernels are not compiled, merging is slower") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("place", [0, SIZE // 2, SIZE - 1])
def test_numbers_that_are_not_finite_are_found_anywhere(place: int, compiled: bool):
    base, models = tensors(torch.float32)
    models[1][place] = 3e38
    with compiling(compiled), pytest.raises(NotFinite, match="_average is not finite"):
        linear(base, models, weight=[1.0, 9.0], normalize=False)


def test_large_finite_sums_are_no_mistake():
    """The sum of these numbers overflows, none of them does."""
    full = torch.full((1000,), 60000.0, dtype=torch.float16)
    assert torch.equal(linear(None, [full, full], weight=[1.0, 1.0]), full)


def test_integers_and_floats_of_equal_value_stay_apart():
    @fused.fused
    def kinds(entries: Entries, floats: Tensor, integers: Tensor) -> Tensor:
        assert floats.dtype == torch.float32
        assert integers.dtype == torch.int32
        return entries.models[0] * floats[0] + integers[0]

    assert kinds(None, [torch.ones(3)], [2.0], [2]).tolist() == [4.0] * 3


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (2, 3, 4)])
def test_shapes_are_kept(shape: tuple[int, ...]):
    x = torch.ones(shape)
    assert linear(None, [x, x], weight=[1.0, 1.0]).shape == shape
    turned = torch.arange(6.0).reshape(2, 3).T
    assert torch.equal(linear(None, [turned, turned], weight=[1.0, 1.0]), turned)
