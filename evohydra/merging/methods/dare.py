"""DARE: drop entries of the task vectors at random and rescale the rest (arXiv 2311.03099, equations 1 and 2).

The paper divides by the density; mergekit restores the L1 norm, and so do we unless `rescale` says otherwise.
"""

from collections.abc import Sequence

from torch import Tensor

from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.kernels.randomness import keys, last_word, random_words, scattered, threshold
from evohydra.merging.methods import once
from evohydra.merging.methods.dropping import KeptNorm, check_rescale, drop, factors, kept_norm
from evohydra.merging.methods.mixing import Mix, mix, mixed
from evohydra.merging.methods.requirements import need_base
from evohydra.merging.methods.trimming import check_shares


@fused
def _dare(
    entries: Entries,
    weights: Tensor,
    scaling: Tensor,
    key: Tensor,
    odd: Tensor,
    last: Tensor,
    factor: Tensor,
    **how: bool,
) -> Tensor:
    scatter = scattered(entries.positions())
    dropped = [
        drop(entries, delta, random_words(scatter, key[k], odd[k]) <= last[k], factor[k])
        for k, delta in enumerate(entries.task_vectors())
    ]
    return mixed(entries, dropped, weights, scaling, **how)


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
    streams: Sequence[int],
    rescale: str,
    norms: Sequence[KeptNorm],
    how: Mix,
    out: Tensor | None,
) -> Tensor:
    check_shares("density", density, models)
    check_rescale(rescale)
    below = [threshold(share) for share in density]
    factor = factors(rescale, density, below, norms, models[0].dtype)
    numbers = (*how.numbers, *keys(streams), [last_word(limit) for limit in below], factor)
    return _dare(need_base(base), models, *numbers, out=out, **how.flags)


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
    how = mix(weight, models, elect=False, normalize=normalize, scaling=scaling)
    return _merge(base, models, density, streams, rescale, norms, how, out)


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
    how = mix(weight, models, elect=True, normalize=normalize, scaling=scaling)
    return _merge(base, models, density, streams, rescale, norms, how, out)
