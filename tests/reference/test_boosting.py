"""Subspace Boosting: spectra by hand, and on top of methods as if by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from evohydra.merging.methods import known_methods, resolve
from evohydra.merging.methods.boosting import boosted_consensus, boosted_task_arithmetic, boosted_ties, raised
from evohydra.merging.methods.consensus import consensus
from evohydra.merging.methods.task_arithmetic import task_arithmetic
from evohydra.merging.methods.ties import ties

EXACT = {"rtol": 1e-6, "atol": 1e-6}
PAIRS: list[tuple[Callable[..., Tensor], Callable[..., Tensor], dict[str, Any]]] = [
    (boosted_consensus, consensus, {"threshold": [0.4, 0.1], "scaling": 0.7}),
    (boosted_task_arithmetic, task_arithmetic, {"weight": [0.7, 0.3], "scaling": 1.5}),
    (boosted_ties, ties, {"weight": [0.7, 0.3], "density": [0.5, 0.4], "rescale": "l1"}),
]


def randoms(seed: int, count: int, *shape: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return list(
        torch.randn(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)
    )


@pytest.mark.parametrize(
    ("boost", "expected"),
    [(0.0, [8, 8, 8, 8]), (0.5, [8, 8, 8, 8]), (0.51, [8, 4, 4, 4]), (0.75, [8, 4, 4, 4]), (0.8, [8, 4, 3, 3]),
     (0.95, [8, 4, 3, 1]), (1.0, [8, 4, 3, 1])],
)  # fmt: skip
def test_singular_values_are_raised_to_the_first_that_reaches_the_share(boost: float, expected: list[float]) -> None:
    # 8 + 4 + 3 + 1 = 16: the running sums are 0.5, 0.75, 0.9375 and 1 of it.
    left, right = (torch.linalg.qr(each).Q for each in randoms(1, 2, 4, 4))
    spectrum = torch.tensor([8.0, 4.0, 3.0, 1.0]).double()
    found = raised((left * spectrum) @ right, boost)
    torch.testing.assert_close(found, (left * torch.tensor(expected).double()) @ right, **EXACT)


def test_directions_that_are_not_there_are_not_raised() -> None:
    x = torch.outer(torch.tensor([3.0, 4.0, 0.0]), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(raised(x, 0.0), x)
    for nothing in (torch.zeros(3, 2), torch.zeros(0, 3), torch.ones(4), torch.ones(2, 2, 2), torch.tensor(3.0)):
        assert torch.equal(raised(nothing, 0.0), nothing)


@pytest.mark.parametrize(("boosted", "plain", "parameters"), PAIRS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_boosted_method_is_the_method_and_then_the_boost(
    boosted: Callable[..., Tensor], plain: Callable[..., Tensor], parameters: dict[str, Any]
) -> None:
    base, *models = randoms(2, 3, 6, 5)
    merged = plain(base, models, **parameters)
    torch.testing.assert_close(
        boosted(base, models, boost=0.3, **parameters), base + raised(merged - base, 0.3), **EXACT
    )
    torch.testing.assert_close(boosted(base, models, boost=1.0, **parameters), merged, **EXACT)
    # Of 16-bit sources the merge is float32 up to its one rounding at the end.
    base, *models = randoms(2, 3, 6, 5, dtype=torch.bfloat16)
    merged = plain(base.float(), [model.float() for model in models], **parameters)
    expected = (base.float() + raised(merged - base.float(), 0.3)).bfloat16()
    assert torch.equal(boosted(base, models, boost=0.3, **parameters), expected)
    out = torch.empty_like(base)
    assert boosted(base, models, boost=0.3, out=out, **parameters) is out
    assert torch.equal(out, expected)


@pytest.mark.parametrize(("boosted", "plain", "parameters"), PAIRS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_boosted_method_takes_the_methods_parameters(
    boosted: Callable[..., Tensor], plain: Callable[..., Tensor], parameters: dict[str, Any]
) -> None:
    name = boosted.__name__
    assert name in known_methods()
    found, inner = resolve(name), resolve(plain.__name__)
    assert found.parameters == inner.parameters | {"boost"}
    assert (found.required, found.per_model) == (inner.required, inner.per_model)
    assert not found.elementwise
    base, *models = randoms(3, 3, 2, 2)
    with pytest.raises(ValueError, match=r"boost: expected a share from 0 to 1, got 1\.5"):
        boosted(base, models, boost=1.5, **parameters)
    with pytest.raises(ValueError, match="needs the base model"):
        boosted(None, models, **parameters)
