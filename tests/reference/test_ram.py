"""RAM and RAM+ on entries that one, several or no models changed, counted by hand."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from evohydra.merging.methods.ram import counts, ram, ramplus_tl

SEEDS = st.integers(0, 10_000)
BASE = torch.tensor([10.0, 10.0, 10.0, 10.0])
# Changed by both, by the first, by the second, by none.
MODELS = [torch.tensor([12.0, 13.0, 10.0, 10.0]), torch.tensor([16.0, 10.0, 9.0, 10.0])]


def test_ram_by_hand() -> None:
    assert ram(BASE, MODELS).tolist() == [14.0, 13.0, 9.0, 10.0]
    assert ram(BASE, MODELS, scaling=0.5).tolist() == [12.0, 11.5, 9.5, 10.0]
    # Above 2: the first model's 2 is no change, the second model's 6 is its own, and its -1 no change either.
    assert ram(BASE, MODELS, epsilon=2.0).tolist() == [16.0, 13.0, 10.0, 10.0]


def test_ramplus_by_hand() -> None:
    # Each shares 1 entry and has 1 of its own: 1 + 0.1 * min(0.2, 1) = 1.02, and 1 + 0.5 * 1 = 1.5.
    torch.testing.assert_close(ramplus_tl(BASE, MODELS), torch.tensor([14.0, 13.06, 8.98, 10.0]))
    result = ramplus_tl(BASE, MODELS, r=0.5, alpha=3.0)
    torch.testing.assert_close(result, torch.tensor([14.0, 14.5, 8.5, 10.0]))
    assert counts(BASE, MODELS, epsilon=1e-5).tolist() == [[1, 1], [1, 1]]


def test_models_with_nothing_of_their_own_or_nothing_shared() -> None:
    """mergekit divides 0 by 0 where epsilon is 0."""
    assert ramplus_tl(BASE, [MODELS[0]], epsilon=0.0).tolist() == MODELS[0].tolist()
    assert ramplus_tl(BASE, [MODELS[0]] * 2, epsilon=0.0).tolist() == MODELS[0].tolist()
    assert ramplus_tl(BASE, [BASE, BASE], epsilon=0.0).tolist() == BASE.tolist()


@given(seed=SEEDS, r=st.floats(0, 2), alpha=st.floats(0, 2))
def test_ramplus_rescales_what_a_model_changed_alone(seed: int, r: float, alpha: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(40, generator=generator, dtype=torch.float64)
    steps = torch.randn(3, 40, generator=generator, dtype=torch.float64)
    steps = steps * (torch.rand(3, 40, generator=generator) < 0.4)
    changed = steps != 0
    sharing = changed.sum(dim=0)
    expected = base + torch.where(sharing > 1, steps.sum(dim=0) / sharing.clamp(min=1), 0)
    for step, mask in zip(steps, changed, strict=True):
        shared, own = int((mask & (sharing > 1)).sum()), int((mask & (sharing == 1)).sum())
        ratio = min(alpha, shared / own) if own else 0.0
        expected = expected + (1 + r * ratio) * torch.where(sharing == 1, step, 0)
    result = ramplus_tl(base, [base + step for step in steps], r=r, alpha=alpha, epsilon=1e-9)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)
