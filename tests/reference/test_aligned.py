"""KnOTS and Core Space: by hand, where the shared bases are known, and what both keep of adapters."""

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evohydra.merging.methods.aligned import Aligned
from evohydra.merging.methods.core_space import core_space, core_space_dare_ties, in_core_space
from evohydra.merging.methods.dare import dare_ties
from evohydra.merging.methods.knots import in_shared_basis, knots, knots_dare_ties
from evohydra.merging.methods.task_arithmetic import task_arithmetic
from evohydra.merging.methods.ties import ties

SEEDS = st.integers(0, 10_000)
EXACT = {"rtol": 1e-9, "atol": 1e-9}
# In the bases that they share. Rows side by side are orthogonal and of lengths 5 and sqrt 5, columns one below the
# other of lengths sqrt 20 and sqrt 10: these bases are all that singular values leave.
PARTS = (torch.tensor([[4.0, 1.0], [0.0, 2.0]]).double(), torch.tensor([[2.0, -2.0], [0.0, 1.0]]).double())
STREAMS = (11, -12, 13)
DROPPING = [
    functools.partial(knots_dare_ties, streams=STREAMS),
    functools.partial(core_space_dare_ties, streams=STREAMS),
]
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


@pytest.mark.parametrize("method", [knots, core_space, *DROPPING])
def test_known_values(method: Any) -> None:
    base, models = adapters(3, (2, 2, 1))
    one_hot = method(base, models, weight=[0.0, 1.0, 0.0], density=[1.0, 1.0, 1.0])
    torch.testing.assert_close(one_hot, models[1], **EXACT)
    nothing = method(base, models, weight=[0.0, 0.0, 0.0], density=[1.0, 1.0, 1.0])
    assert torch.equal(nothing, base)
    # Where all agree on every sign, a weighted sum is one in any basis.
    of_two = functools.partial(method, streams=STREAMS[:2]) if method in DROPPING else method
    twice = of_two(base, [models[0]] * 2, weight=[0.5, 0.25], density=[1.0, 1.0], normalize=False)
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


@pytest.mark.parametrize("method", [knots, core_space, *DROPPING])
def test_tasks_without_a_change(method: Any) -> None:
    base = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(method(base, [base] * 3, weight=[1.0] * 3, density=[0.2] * 3), base)


@pytest.mark.parametrize("method", DROPPING)
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 3), ()])
def test_what_is_no_matrix_is_merged_by_dare_ties(method: Any, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(5)
    base, *models = (torch.randn(shape, generator=generator) for _ in range(4))
    how = {"weight": [0.5, 1.0, 0.7], "density": [0.5, 0.8, 0.4]}
    expected = dare_ties(base, models, streams=STREAMS, rescale="density", normalize=True, **how)
    torch.testing.assert_close(method(base, models, **how), expected)


def lowbias32(x: np.ndarray) -> np.ndarray:
    """As published: C. Wellons, Prospecting for Hash Functions (2018)."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x ^ (x >> np.uint32(16))


def kept_at(stream: int, shape: tuple[int, ...], density: float) -> np.ndarray:
    """Which entries DARE keeps: hashed position times a key's odd factor, whose upper half is below the density."""
    mixed = lowbias32(np.array([stream], np.int64).astype(np.uint32))
    factor = lowbias32(mixed ^ np.uint32(0x9E3779B9)) | np.uint32(1)
    word = ((lowbias32(np.arange(math.prod(shape), dtype=np.uint32)) ^ mixed) * factor).view(np.int32)
    return ((word >> 16) < round(density * 2**16) - 2**15).reshape(shape)


@given(
    seed=SEEDS, scaling=st.sampled_from([1.0, 0.4]), normalize=st.booleans(), rescale=st.sampled_from(["density", "l1"])
)
def test_dare_ties_in_the_shared_bases_as_numpy_computes_it(
    seed: int, scaling: float, normalize: bool, rescale: str
) -> None:
    """Bases of numpy's singular vectors, masks of the published hash, then algorithm 1 of TIES on what is left."""
    base, models = adapters(seed, (2, 2, 1))
    weight, density = np.array([0.8, 0.3, 0.5]), [0.7, 0.4, 0.9]
    deltas = [(model - base).numpy() for model in models]
    left = np.linalg.svd(np.hstack(deltas))[0][:, :5]
    right = np.linalg.svd(np.vstack(deltas))[2][:5]
    for method, there in ((knots_dare_ties, np.eye(9)), (core_space_dare_ties, right)):
        dropped = []
        for delta, stream, share in zip(deltas, STREAMS, density, strict=True):
            part = left.T @ delta @ there.T
            masked = part * kept_at(stream, part.shape, share)
            norm = np.abs(masked).sum()
            grown = np.abs(part).sum() / norm if rescale == "l1" and norm else 1 / share if rescale == "density" else 1
            dropped.append(masked * grown)
        weighted = weight[:, None, None] * np.array(dropped)
        elected = np.sign(weighted.sum(0))
        agree = np.sign(weighted) == elected
        total = (weighted * agree).sum(0)
        if normalize:
            shares = (weight[:, None, None] * agree * (elected != 0)).sum(0)
            total = np.divide(total, shares, out=np.zeros_like(total), where=shares > 0)
        expected = base.numpy() + scaling * left @ total @ there
        how = {"weight": [*weight], "density": density, "normalize": normalize, "scaling": scaling, "rescale": rescale}
        result = method(base, models, streams=STREAMS, **how)
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", [knots_dare_ties, core_space_dare_ties])
def test_on_average_over_masks_a_task_is_itself(method: Any) -> None:
    """Dividing by the density makes DARE unbiased, in any basis (arXiv 2311.03099, section 3)."""
    base, models = adapters(4, (2,))
    made = [method(base, models, weight=[1.0], density=[0.5], streams=[stream]) for stream in range(400)]
    assert float((torch.stack(made) - models[0]).norm(dim=(1, 2)).min()) > 0.1 * float((models[0] - base).norm())
    apart = torch.stack(made).mean(0) - models[0]
    assert float(apart.norm()) < 0.15 * float((models[0] - base).norm())  # three times 1 / sqrt(400)


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
