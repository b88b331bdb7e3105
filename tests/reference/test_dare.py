"""DARE: how much is kept, what is expected of it, how it is rescaled; and where its random masks come from."""

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evohydra.merging.engine import Engine
from evohydra.merging.kernels.randomness import STEPS, keys, positions_of, random_words, scattered, stream_key
from evohydra.merging.methods.dare import dare_linear, dare_ties
from evohydra.recipe import Checkpoint, Group, Merge
from tests.contracts.test_methods import Memory
from tests.elsewhere import elsewhere

CPU = torch.device("cpu")
MANY = 400_000
SHAPES = {"a": (30, 20), "b": (30, 20), "c": (601,)}


def words(key: int, size: int = MANY) -> Tensor:
    """Random words of a stream."""
    mixed, factor = (torch.tensor(each, dtype=torch.int32) for each in keys([key]))
    return random_words(scattered(positions_of(0, size)), mixed, factor)


def uniforms(seed: int, size: int = MANY) -> Tensor:
    """The bits of a stream that are used, as numbers in [0, 1)."""
    return ((words(stream_key(seed, "tensor", "source"), size) >> 16) + STEPS // 2).double() / STEPS


def lowbias32(x: np.ndarray) -> np.ndarray:
    """As published: C. Wellons, Prospecting for Hash Functions (2018), in the 32-bit arithmetic of its C code."""
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


@given(key=st.integers(-(2**31), 2**31 - 1))
def test_random_words_are_the_published_hash_then_multiplied(key: int) -> None:
    """In the 32-bit arithmetic of C, key and factor too."""
    counter, word = np.arange(5000, dtype=np.uint32), np.array([key], dtype=np.int64).astype(np.uint32)
    ours = scattered(torch.arange(5000, dtype=torch.int32)).numpy().view(np.uint32)
    expected = lowbias32(counter.copy())
    np.testing.assert_array_equal(ours, expected)
    mixed = lowbias32(word.copy())
    factor = lowbias32(mixed ^ np.uint32(0x9E3779B9)) | np.uint32(1)
    np.testing.assert_array_equal(words(key, 5000).numpy().view(np.uint32), (expected ^ mixed) * factor)


@pytest.mark.parametrize("density", [0.1, 0.5])
def test_masks_of_many_streams_are_independent(density: float) -> None:
    """Of 40 streams with neighbouring keys, each two keep density^2 of the entries, within five standard errors."""
    kept = torch.stack([(words(key, 50_000) >> 16) < density * STEPS - STEPS / 2 for key in range(40)]).double()
    both = kept @ kept.T / kept.shape[1]
    both = both[~torch.eye(40, dtype=torch.bool)]
    chance = density**2
    assert float((both - chance).abs().max()) < 5 * math.sqrt(chance * (1 - chance) / kept.shape[1])


def test_random_numbers_are_uniform_and_independent() -> None:
    """Tolerances are five standard errors of uniform numbers; streams of one seed, and entries near each other."""
    one, other = uniforms(1), uniforms(2)
    assert float(one.min()) >= 0.0
    assert float(one.max()) < 1.0
    assert float(one.mean()) == pytest.approx(0.5, abs=5 / math.sqrt(12 * MANY))
    counts = torch.histc(one.float(), 100, 0, 1)
    assert float(((counts - MANY / 100) ** 2 / (MANY / 100)).sum()) < 99 + 5 * math.sqrt(2 * 99)
    near = (
        ((words(7) >> 16) + STEPS // 2).double(),
        ((words(6) >> 16) + STEPS // 2).double(),
    )  # keys that differ by a bit
    for a, b in ((one, other), near, *((one[step:], one[:-step]) for step in (1, 2, 64, 1024, 4096))):
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 5 / math.sqrt(len(a) - 2)


def dropped(delta: Tensor, density: float, rescale: str, seed: int = 3) -> Tensor:
    """What is left of one task vector."""
    base = torch.zeros_like(delta)
    return dare_linear(base, [delta], weight=[1.0], density=[density], streams=[seed], rescale=rescale)


@pytest.mark.parametrize("density", [0.01, 0.3, 0.5, 0.95])
def test_a_share_of_density_is_kept(density: float) -> None:
    kept = dropped(torch.ones(MANY), density, "none")
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    error = math.sqrt(density * (1 - density) / MANY)
    assert float(kept.mean()) == pytest.approx(density, abs=5 * error)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_density_of_1_keeps_all_and_of_0_nothing(dtype: torch.dtype) -> None:
    delta = torch.randn(1000, generator=torch.Generator().manual_seed(1)).to(dtype)
    for rescale in ("none", "density", "l1"):
        assert torch.equal(dropped(delta, 1.0, rescale), delta)
        assert not dropped(delta, 0.0, rescale).any()


@pytest.mark.parametrize("density", [0.2, 0.7])
def test_rescaling_by_density_keeps_the_expectation(density: float) -> None:
    """Equation 2 of the paper: the mean over masks is the task vector itself."""
    delta = torch.tensor([3.0, -1.0, 0.5, 0.0, -2.0])
    runs = 20_000
    mean = dropped(delta.repeat(runs), density, "density").reshape(runs, 5).mean(0)
    error = delta.abs() * math.sqrt((1 - density) / density / runs)
    assert ((mean - delta).abs() <= 5 * error + 1e-3).all()  # densities are multiples of 2^-16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@given(seed=st.integers(-(2**31), 2**31 - 1), density=st.floats(0.05, 0.95), size=st.integers(1, 500))
def test_what_is_kept_is_rescaled_as_named(dtype: torch.dtype, seed: int, density: float, size: int) -> None:
    delta = torch.randn(size, generator=torch.Generator().manual_seed(size)).to(dtype)
    kept = dropped(delta, density, "none", seed)
    assert torch.equal(kept[kept != 0], delta[kept != 0])
    close = {"rtol": 2e-2 if dtype == torch.bfloat16 else 1e-5, "atol": 1e-6}
    torch.testing.assert_close(dropped(delta, density, "density", seed).double(), kept.double() / density, **close)
    norms = delta.double().abs().sum(), kept.double().abs().sum()
    expected = kept.double() * (norms[0] / norms[1] if norms[1] > 0 else 1.0)
    torch.testing.assert_close(dropped(delta, density, "l1", seed).double(), expected, **close)


def test_a_mask_that_keeps_nothing_gives_zeros() -> None:
    seed = next(seed for seed in range(1000) if int((words(seed, 3) >> 16).min()) > -STEPS // 4)
    for rescale in ("none", "density", "l1"):
        assert dropped(torch.ones(3), 0.1, rescale, seed).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("density", "rescale"), [(1.5, "density"), (-0.1, "none"), (0.5, "yes")])
def test_wrong_settings_are_errors(density: float, rescale: str) -> None:
    with pytest.raises(ValueError, match=r"(density|rescale) must"):
        dropped(torch.ones(3), density, rescale)


def test_dare_before_task_arithmetic_and_before_sign_election_by_hand() -> None:
    base = torch.tensor([1.0, 1.0, 1.0])
    models = [base + torch.tensor([2.0, -4.0, 6.0]), base + torch.tensor([-3.0, -5.0, 7.0])]

    def kept(key: int) -> list[bool]:
        return ((words(key, 3) >> 16) < 0).tolist()  # at density 0.5

    keys = [next(k for k in range(1000) if kept(k) == wanted) for wanted in ([True, True, False], [True, True, True])]
    # Density 0.5, over 0.5: [4, -8, 0] and [-6, -10, 14]; weights (1, 2): [4, -8, 0] and [-12, -20, 28].
    settings = {"weight": [1.0, 2.0], "density": [0.5, 0.5], "streams": keys, "rescale": "density"}
    assert dare_linear(base, models, **settings).tolist() == [1 - 8, 1 - 28, 1 + 28]
    # Sums -8, -28, 28: in the first entry only -12 agrees.
    assert dare_ties(base, models, **settings).tolist() == [1 - 12, 1 - 28, 1 + 28]
    # The weights of what agrees: 2, 1 + 2, 2.
    expected = [1 - 12 / 2, 1 - 28 / 3, 1 + 28 / 2]
    assert dare_ties(base, models, **settings, normalize=True).tolist() == pytest.approx(expected)


def masks(order: tuple[str, ...] = ("a", "b", "c"), models: tuple[str, ...] = ("one", "two"), seed: int = 5,
          cache: int = 2**20) -> dict[str, Tensor]:  # fmt: skip
    """What of source `one` alone is kept, tensor by tensor: ones and zeros."""
    tensors = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    filled = {name: torch.ones(shape) for name, shape in SHAPES.items()}
    sources = {"base": Memory(tensors), **{model: Memory(filled) for model in models}}
    weight = tuple(float(model == "one") for model in models)
    parameters = {"weight": weight, "density": tuple(0.5 for _ in models)}
    recipe = Merge(
        "dare_linear", Checkpoint("base", "-"), tuple(Checkpoint(m, "-") for m in models),
        (Group("all", tuple(SHAPES), parameters),), {"mask_seed": seed, "rescale": "none"},
    )  # fmt: skip
    engine = Engine(sources, device=CPU, cache_bytes=cache)
    return {name: engine.tensor(recipe, name) for name in order}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def mask_digest() -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for _, tensor in sorted(masks().items()))).hexdigest()


def test_masks_depend_on_seed_tensor_and_source_alone() -> None:
    reference = masks()
    assert same(reference, masks(order=("c", "a", "b")))
    assert same(reference, masks(models=("two", "one", "three")))
    assert same(reference, masks(cache=0))
    assert not any(torch.equal(tensor, masks(seed=6)[name]) for name, tensor in reference.items())
    assert not torch.equal(reference["a"], reference["b"])
    torch.manual_seed(1)
    first = masks()
    torch.manual_seed(2)
    assert same(first, masks())
    keys = [stream_key(seed, t, s) for seed in (1, 11) for t in ("a", "ab") for s in ("b", "bb", "one")]
    assert len(set(keys)) == len(keys)


def test_masks_are_the_same_in_another_process() -> None:
    assert elsewhere(__name__, "mask_digest") == mask_digest()
