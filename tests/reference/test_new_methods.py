"""What all methods beyond the classic ones keep to: kernels, odd shapes, untouched inputs, errors."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from evohydra.merging.kernels import compilation
from evohydra.merging.kernels.compilation import compiling
from evohydra.merging.kernels.fused import NotFinite
from evohydra.merging.methods import asks, resolve

# name: (method, models beside the base, parameters)
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "nuslerp": ("nuslerp", 2, {"weight": [0.3, 0.6]}),
    "nuslerp rows": ("nuslerp", 2, {"weight": [0.3, 0.6], "nuslerp_flatten": False}),
    "nuslerp columns": (
        "nuslerp", 2, {"weight": [0.3, 0.6], "nuslerp_flatten": False, "nuslerp_row_wise": True},
    ),
    "multislerp": ("multislerp", 3, {"weight": [0.3, 0.6, 0.2]}),
    "karcher": ("karcher", 3, {"weight": [1.0, 1.0, 2.0]}),
    "model_stock": ("model_stock", 3, {}),
    "model_stock rows": ("model_stock", 3, {"filter_wise": True}),
    "ram": ("ram", 3, {}),
    "ramplus": ("ramplus_tl", 3, {}),
    "nearswap": ("nearswap", 1, {"t": 0.002}),
    "arcee_fusion": ("arcee_fusion", 1, {}),
    "passthrough": ("passthrough", 1, {"scale": 0.7}),
    "geometric_median": ("geometric_median", 3, {"weight": [1.0, 2.0, 1.0]}),
    "tsv_m": ("tsv_m", 2, {"scaling": 0.7}),
    "iso_c": ("iso_c", 2, {"scaling": 0.7}),
    "iso_cts": ("iso_cts", 2, {"scaling": 0.7, "common": 0.5}),
    "knots": ("knots", 2, {"weight": [0.3, 0.6], "density": [0.7, 0.9]}),
    "core_space": ("core_space", 2, {"weight": [0.3, 0.6], "density": [0.7, 0.9]}),
    "knots_dare_ties": ("knots_dare_ties", 2, {"weight": [0.3, 0.6], "density": [0.7, 0.9], "streams": [3, -4]}),
    "core_space_dare_ties": (
        "core_space_dare_ties", 2, {"weight": [0.3, 0.6], "density": [0.7, 0.9], "streams": [3, -4]},
    ),
    "consensus": ("consensus", 3, {"threshold": [0.4, 0.5, 0.6], "scaling": 0.7}),
    "emr": ("emr", 3, {"scaling": 0.7}),
    "wudi": ("wudi", 2, {"scaling": 0.7, "ridge": 0.1}),
    "pcb": ("pcb", 3, {"weight": [0.8, 1.0, 1.2], "density": 0.3, "scaling": 0.7}),
}  # fmt: skip
SHAPES = [(), (1,), (0,), (3, 0), (0, 3), (1, 5), (5, 1), (7,), (2, 3, 4), (4, 4)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
FACTORS = {
    "tsv_m",
    "iso_c",
    "iso_cts",
    "wudi",
    "knots",
    "core_space",
    "knots_dare_ties",
    "core_space_dare_ties",
}  # singular vectors and products, see docs/merging.md
BASELESS = {name for name in CASES if name.startswith(("nuslerp", "multislerp", "karcher", "passthrough", "geometric"))}


def function(name: str) -> Callable[..., Tensor]:
    return resolve(CASES[name][0]).function


def sources(name: str, shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """A base and sparse steps away from it."""
    generator = torch.Generator().manual_seed(seed)
    base = 0.05 * torch.randn(shape, generator=generator)
    steps = [
        0.01 * torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < 0.7)
        for _ in range(CASES[name][1])
    ]
    return base.to(dtype), [(base + step).to(dtype) for step in steps]


@pytest.mark.parametrize("name", CASES)
def test_compiled_kernels_give_the_same_bits(name: str) -> None:
    base, models = sources(name, (128, 256), torch.bfloat16)
    eager = function(name)(base, models, **CASES[name][2])
    with compiling(True):
        compiled = function(name)(base, models, **CASES[name][2])
    assert all(kernel is not None for kernel in compilation._compiled.values())
    assert torch.equal(eager, compiled)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_every_shape_and_type_gives_finite_numbers(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    base, models = sources(name, shape, dtype)
    before = [x.clone() for x in (base, *models)]
    result = function(name)(base, models, **CASES[name][2])
    assert result.shape == shape
    assert result.dtype == dtype
    assert result.isfinite().all()
    assert all(torch.equal(x, y) for x, y in zip(before, (base, *models), strict=True))
    out = torch.full_like(base, 9.0)
    assert function(name)(base, models, out=out, **CASES[name][2]) is out
    assert torch.equal(out, result)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_models_that_are_the_base_and_tensors_of_zeros_stay_what_they_are(name: str, dtype: torch.dtype) -> None:
    base, models = sources(name, (6, 5), dtype)
    scale = 0.7 if name == "passthrough" else 1.0
    tolerance = {"rtol": 4 * torch.finfo(dtype).eps, "atol": torch.finfo(dtype).eps}
    result = function(name)(base, [base.clone() for _ in models], **CASES[name][2])
    torch.testing.assert_close(result, scale * base, **tolerance)
    zeros = torch.zeros_like(base)
    assert not function(name)(zeros, [zeros.clone() for _ in models], **CASES[name][2]).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_order_of_strides_does_not_matter(name: str, dtype: torch.dtype) -> None:
    base, models = sources(name, (6, 5), dtype)
    turned = [x.T.contiguous().T for x in (base, *models)]
    assert torch.equal(
        function(name)(turned[0], turned[1:], **CASES[name][2]), function(name)(base, models, **CASES[name][2])
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", sorted(set(CASES) - FACTORS))
def test_the_number_of_threads_does_not_show(name: str, dtype: torch.dtype) -> None:
    base, models = sources(name, (512, 600), dtype)
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(function(name)(base, models, **CASES[name][2]))
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(result, results[0]) for result in results[1:])


@pytest.mark.parametrize("name", sorted(set(CASES) - BASELESS))
def test_a_missing_base_is_an_error(name: str) -> None:
    _, models = sources(name, (2, 3), torch.float32)
    with pytest.raises(ValueError, match="needs the base model of its sources, and the sources name none"):
        function(name)(None, models, **CASES[name][2])


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("nuslerp", 1, "nuslerp takes exactly 2 models, got 1"),
        ("nuslerp", 3, "nuslerp takes exactly 2 models, got 3"),
        ("multislerp", 0, "multislerp takes at least 1 model, got 0"),
        ("karcher", 0, "karcher takes at least 1 model, got 0"),
        ("model_stock", 1, "model_stock takes at least 2 models, got 1"),
        ("ram", 0, "ram takes at least 1 model, got 0"),
        ("ramplus", 0, "ramplus_tl takes at least 1 model, got 0"),
        ("nearswap", 2, "nearswap takes exactly 1 model, got 2"),
        ("arcee_fusion", 2, "arcee_fusion takes exactly 1 model, got 2"),
        ("passthrough", 2, "passthrough takes exactly 1 model, got 2"),
        ("geometric_median", 0, "geometric_median takes at least 1 model, got 0"),
        ("tsv_m", 0, "tsv_m takes at least 1 model, got 0"),
        ("iso_c", 0, "iso_c takes at least 1 model, got 0"),
        ("iso_cts", 0, "iso_cts takes at least 1 model, got 0"),
        ("knots", 0, "knots takes at least 1 model, got 0"),
        ("core_space", 0, "core_space takes at least 1 model, got 0"),
        ("knots_dare_ties", 0, "knots takes at least 1 model, got 0"),
        ("core_space_dare_ties", 0, "core_space takes at least 1 model, got 0"),
        ("consensus", 0, "consensus takes at least 1 model, got 0"),
        ("emr", 0, "emr takes at least 1 model, got 0"),
        ("wudi", 0, "wudi takes at least 1 model, got 0"),
        ("pcb", 0, "pcb takes at least 1 model, got 0"),
    ],
)
def test_the_number_of_models_is_checked(name: str, count: int, message: str) -> None:
    parameters = {key: [1.0] * count if isinstance(value, list) else value for key, value in CASES[name][2].items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        function(name)(torch.ones(2), [torch.ones(2)] * count, **parameters)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("multislerp", {"weight": [1.0, -2.0, 1.0]}, "weights that sum to 0: [1.0, -2.0, 1.0]"),
        ("multislerp", {"eps": 0.0}, "eps: expected a number above 0, got 0.0"),
        ("karcher", {"weight": [0.0, 0.0, 0.0]}, "weights that sum to 0: [0.0, 0.0, 0.0]"),
        ("karcher", {"tol": -1.0}, "tol: expected a number of at least 0, got -1.0"),
        ("karcher", {"max_iter": -1}, "max_iter: expected a number of at least 0, got -1"),
        ("ram", {"epsilon": -1e-5}, "epsilon: expected a number of at least 0, got -1e-05"),
        ("ramplus", {"epsilon": -1e-5}, "epsilon: expected a number of at least 0, got -1e-05"),
        ("ramplus", {"alpha": -0.1}, "alpha: expected a number of at least 0, got -0.1"),
        ("nearswap", {"t": -0.1}, "t: expected a number of at least 0, got -0.1"),
        ("nearswap", {"t": float("nan")}, "t: expected a number of at least 0, got nan"),
        ("geometric_median", {"weight": [0.0, 0.0, 0.0]}, "weights that sum to 0: [0.0, 0.0, 0.0]"),
        ("geometric_median", {"weight": [1.0, -1.0, 1.0]}, "weight of model 2: expected a number of at least 0"),
        ("geometric_median", {"nu": 0.0}, "nu: expected a distance above 0, got 0.0"),
        ("tsv_m", {"share": 0.0}, "share: expected a number above 0 and up to 1, got 0.0"),
        ("iso_cts", {"common": 1.5}, "common: expected a share from 0 to 1, got 1.5"),
        ("knots", {"density": [0.5, 1.5]}, "density must lie in [0, 1] for each of 2 models, got [0.5, 1.5]"),
        ("core_space", {"density": [0.5, -0.5]}, "density must lie in [0, 1] for each of 2 models, got [0.5, -0.5]"),
        ("knots_dare_ties", {"density": [0.5, 1.5]}, "density must lie in [0, 1] for each of 2 models, got [0.5, 1.5]"),
        ("core_space_dare_ties", {"rescale": "l2"}, "rescale must be one of none, density, l1, got 'l2'"),
        ("consensus", {"threshold": [0.4, -0.4, 0.4]}, "threshold of model 2: expected a number of at least 0"),
        ("consensus", {"agree": 4}, "agree: expected a number of models from 1 to 3, got 4"),
        ("consensus", {"agree": 0}, "agree: expected a number of models from 1 to 3, got 0"),
        ("wudi", {"ridge": -0.1}, "ridge: expected a number of at least 0, got -0.1"),
        ("pcb", {"density": 1.5}, "density: expected a share from 0 to 1, got 1.5"),
        ("pcb", {"weight": [1.0, 1.0]}, "expected a weight for each of 3 models, got [1.0, 1.0]"),
    ],
)  # fmt: skip
def test_bad_values_are_errors_that_say_what_came(name: str, parameters: dict[str, Any], message: str) -> None:
    base, models = sources(name, (3, 4), torch.float32)
    with pytest.raises(ValueError, match=re.escape(message)):
        function(name)(base, models, **{**CASES[name][2], **parameters})


@pytest.mark.parametrize("name", sorted(set(CASES) - FACTORS))
def test_overflow_is_not_passed_on(name: str) -> None:
    base, models = sources(name, (3, 4), torch.float32)
    with pytest.raises(NotFinite):
        function(name)(base, [torch.full_like(base, float("nan")) for _ in models], **CASES[name][2])


@pytest.mark.parametrize("name", CASES)
def test_what_is_computed_once_is_all_that_a_genome_needs_it_for(name: str) -> None:
    """Methods give the same with their providers' results handed in, which are tensors, arrays, numbers or tuples."""
    method = resolve(CASES[name][0])
    base, models = sources(name, (6, 5), torch.bfloat16)
    given, kept = {**method.defaults, **CASES[name][2]}, {}
    for key, provider in method.providers.items():  # which may take what those before it have made
        known = given | kept
        kept[key] = provider(base, models, **{name: known[name] for name in asks(provider)})
    handed = method.function(base, models, **CASES[name][2], **kept)
    assert torch.equal(handed, method.function(base, models, **CASES[name][2]))
