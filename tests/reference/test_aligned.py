"""KnOTS and Core Space: by hand, where the shared bases are known, and what both keep of adapters."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evohydra.merging.methods.aligned import Aligned
from evohydra.merging.methods.core_space import core_space, in_core_space
from evohydra.merging.methods.knots import in_shared_basis, knots
from evohydra.merging.methods.task_arithmetic import task_arithmetic
from evohydra.merging.methods.ties import ties

SEEDS = st.integers(0, 10_000)
EXACT = {"rtol": 1e-9, "atol": 1e-9}
# In the bases that they share. Rows side by side are orthogonal and of lengths 5 and sqrt 5, columns one below the
# other of lengths sqrt 20 and sqrt 10: these bases are all that singular values leave.
PARTS = (torch.tensor([[4.0, 1.0], [0.0, 2.0]]).double(), torch.tensor([[2.0, -2.0], [0.0, 1.0]]).double())
MERGED = torch.tensor([[3.0, -2.0], [0.0, 1.5]]).double()  # TIES by hand: 1 and -2 elect the minus


def turned(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]]).double()


def adapters(seed: int, ranks: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
    """A base (7, 9) and models that are it plus products of these ranks."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    base = draw(7, 9)
    return base, [base + draw(7, rank) @ draw(rank, 9) for rank in ranks]


def test_knots_by_hand() -> None:
    outputs, base = turned(0.7), torch.ones(2, 2).double()
    models = [base + outputs @ part for part in PARTS]
    result = knots(base, models, weight=[1.0, 1.0], density=[1.0, 1.0], scaling=0.5)
    torch.testing.assert_close(result, base + 0.5 * outputs @ MERGED, **EXACT)
    assert not torch.allclose(ties(base, models, weight=[1.0, 1.0], density=[1.0, 1.0], scaling=0.5), result)
    # Half of the entries of each part: 4 and 2, 2 and -2.
    trimmed = torch.tensor([[3.0, -2.0], [0.0, 2.0]]).double()
    result = knots(base, models, weight=[1.0, 1.0], density=[0.5, 0.5])
    torch.testing.assert_close(result, base + outputs @ trimmed, **EXACT)


def test_core_space_by_hand() -> None:
    outputs, inputs, base = turned(0.7), turned(-0.4), torch.ones(2, 2).double()
    models = [base + outputs @ part @ inputs for part in PARTS]
    result = core_space(base, models, weight=[1.0, 1.0], density=[1.0, 1.0], scaling=0.5)
    torch.testing.assert_close(result, base + 0.5 * outputs @ MERGED @ inputs, **EXACT)
    assert not torch.allclose(knots(base, models, weight=[1.0, 1.0], density=[1.0, 1.0], scaling=0.5), result)


@given(seed=SEEDS)
def test_nothing_of_an_adapter_is_lost_in_the_shared_bases(seed: int) -> None:
    base, models = adapters(seed, (2, 1))

    def again(aligned: Aligned) -> list[Tensor]:
        assert aligned.left is not None
        assert aligned.left.shape == (7, 3)
        right = torch.eye(9).double() if aligned.right is None else aligned.right
        return [aligned.left @ part @ right for part in aligned.parts]

    for aligned in (in_shared_basis(base, models), in_core_space(base, models)):
        for made, model in zip(again(aligned), models, strict=True):
            torch.testing.assert_close(made, model - base, **EXACT)
    assert [part.shape for part in in_core_space(base, models).parts] == [(3, 3), (3, 3)]  # the sum of the ranks


@pytest.mark.parametrize("method", [knots, core_space])
def test_known_values(method: object) -> None:
    base, models = adapters(3, (2, 2, 1))
    one_hot = method(base, models, weight=[0.0, 1.0, 0.0], density=[1.0, 1.0, 1.0])  # type: ignore[operator]
    torch.testing.assert_close(one_hot, models[1], **EXACT)
    nothing = method(base, models, weight=[0.0, 0.0, 0.0], density=[1.0, 1.0, 1.0])  # type: ignore[operator]
    assert torch.equal(nothing, base)
    # Where all agree on every sign, a weighted sum is one in any basis.
    twice = method(base, [models[0]] * 2, weight=[0.5, 0.25], density=[1.0, 1.0], normalize=False)  # type: ignore[operator]
    expected = task_arithmetic(base, [models[0]] * 2, weight=[0.5, 0.25])
    torch.testing.assert_close(twice, expected, **EXACT)


@pytest.mark.parametrize("method", [knots, core_space])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 3), ()])
def test_what_is_no_matrix_is_merged_by_ties(method: object, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(5)
    base, *models = (torch.randn(shape, generator=generator) for _ in range(3))
    how = {"weight": [0.5, 1.0], "density": [0.5, 0.8]}
    expected = ties(base, models, **how)
    torch.testing.assert_close(method(base, models, **how), expected)  # type: ignore[operator]


@pytest.mark.parametrize("method", [knots, core_space])
def test_tasks_without_a_change(method: object) -> None:
    base = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(method(base, [base, base], weight=[1.0, 1.0], density=[0.2, 0.2]), base)  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("merged_in", [None, torch.float32])
def test_roundings_of_the_sources_are_no_directions(dtype: torch.dtype, merged_in: torch.dtype | None) -> None:
    """Else trimming would count them: a fifth of all entries would be all that is not noise."""
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    base = (0.1 * draw(96, 64)).to(dtype)
    exact = [base.double() + draw(96, rank) @ draw(rank, 64) for rank in (2, 1)]
    models = [model.to(dtype).to(merged_in or dtype) for model in exact]
    base = base.to(merged_in or dtype)
    how = {"weight": [1.0, 1.0], "density": [0.2, 0.2]}
    for method, provider in ((knots, in_shared_basis), (core_space, in_core_space)):
        aligned = provider(base, models)
        assert aligned.left is not None
        assert aligned.left.shape == (96, 3)
        result = method(base, models, **how).double()
        expected = method(base.double(), exact, **how)
        near = float((result - expected).norm() / (expected - base.double()).norm())
        assert near < 40 * torch.finfo(dtype).eps
