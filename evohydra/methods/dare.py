"""DARE: drop entries of the task vectors at random and rescale the rest (arXiv 2311.03099, equations 1 and 2).

The paper divides by the density; mergekit restores the L1 norm, and so do we unless `rescale` says otherwise.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from evohydra.methods import once
from evohydra.methods.dropping import KeptNorm, check_rescale, drop, factors, kept_norm
from evohydra.methods.fused import Entries, fused
from evohydra.methods.randomness import last_word, random_words, scattered, threshold
from evohydra.methods.sign_election import elected_sum
from evohydra.methods.sign_election import shares as agreeing_shares
from evohydra.methods.task_vectors import add_to_base, check_weights, need_base, plain_sum, shares
from evohydra.methods.trimming import check_shares


@fused
def _dare(
    entries: Entries,
    weights: Tensor,
    stream: Tensor,
    last: Tensor,
    factor: Tensor,
    scaling: Tensor,
    *,
    elect: bool,
    normalize: bool,
    scaled: bool,
) -> Tensor:
    scatter = scattered(entries.positions())
    dropped = [
        drop(entries, delta, random_words(scatter, stream[k]) <= last[k], factor[k])
        for k, delta in enumerate(entries.task_vectors())
    ]
    mix = elected_sum if elect else plain_sum
    return add_to_base(entries, mix(entries, dropped, weights, normalize), scaling, scaled)


def kept_norms(
    base: Tensor | None, models: Sequence[Tensor], *, streams: Sequence[int], rescale: str
) -> list[KeptNorm]:
    """The norms that masks keep, where they are asked for: a provider for `once`."""
    pairs = zip(models, streams, strict=True)
    return [kept_norm(base, model, stream) for model, stream in pairs] if rescale == "l1" else []


def _merge(
    base: Tensor | None,
    models: Sequence[Tensor],
    density: Sequence[float],
    weight: Sequence[float],
    streams: Sequence[int],
    rescale: str,
    norms: Sequence[KeptNorm],
    scaling: float,
    **how: Any,
) -> Tensor:
    check_weights(weight, models, how["normalize"] and not how["elect"])
    check_shares("density", density, models)
    check_rescale(rescale)
    rounded = (agreeing_shares if how["elect"] else shares)(weight, models[0].dtype)
    below = [threshold(share) for share in density]
    numbers = (
        rounded,
        list(streams),
        list(map(last_word, below)),
        factors(rescale, density, below, norms, models[0].dtype),
    )
    return _dare(need_base(base), models, *numbers, [float(scaling)], scaled=scaling != 1, **how)


@once(norms=kept_norms)
def dare_linear(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    streams: Sequence[int],
    rescale: str = "l1",
    normalize: bool = False,
    scaling: float = 1.0,
    norms: Sequence[KeptNorm] = (),
    out: Tensor | None = None,
) -> Tensor:
    """DARE before task arithmetic."""
    how = {"elect": False, "normalize": normalize, "out": out}
    return _merge(base, models, density, weight, streams, rescale, norms, scaling, **how)


@once(norms=kept_norms)
def dare_ties(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    streams: Sequence[int],
    rescale: str = "l1",
    normalize: bool = False,
    scaling: float = 1.0,
    norms: Sequence[KeptNorm] = (),
    out: Tensor | None = None,
) -> Tensor:
    """DARE before sign election, its mask in place of TIES' trimming: the method of the paper's EvoLLM-JP."""
    how = {"elect": True, "normalize": normalize, "out": out}
    return _merge(base, models, density, weight, streams, rescale, norms, scaling, **how)
