"""Subspace Boosting on top of other methods: raise weak directions of what is merged (arXiv 2506.16506)."""

import functools
import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.arithmetic import wide
from evohydra.merging.methods import Provider, once, providers_of
from evohydra.merging.methods.consensus import consensus
from evohydra.merging.methods.requirements import need_base
from evohydra.merging.methods.singular import base_plus, has_singular_vectors, svd
from evohydra.merging.methods.task_arithmetic import task_arithmetic
from evohydra.merging.methods.ties import ties
from evohydra.merging.signatures import OUT


def raised(x: Tensor, boost: float) -> Tensor:
    """`x`, (m, n), with its singular values raised to s_k, the first at which s_1 + ... + s_k is `boost` of their sum.

    Section 4, algorithm 1, with its beta = `boost`: at 0 all are raised to the largest, at 1 none is. Those that are
    rounding errors are not raised, nor are tensors that are no matrices. ValueError for no share from 0 to 1.
    """
    if not 0.0 <= boost <= 1.0:
        raise ValueError(f"boost: expected a share from 0 to 1, got {boost}")
    if boost == 1.0 or not has_singular_vectors(x):
        return x
    u, s, vt = svd(x)
    known = s[s > 0]
    if not len(known):
        return x
    reached = torch.cumsum(known.double(), 0)
    first = min(int((reached < boost * reached[-1]).sum()), len(known) - 1)
    return (u * torch.where(s > 0, s.clamp(min=float(known[first])), 0.0)) @ vt


def boosted(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The merge method that is `method`, and then raises the singular values of its merged task vector by `boost`.

    It takes the parameters of `method`, which has to write into `out` where that is given, and computes in float32. The
    paper's code boosts the matrices of attention and MLP, this one all.
    """
    given = inspect.signature(method, eval_str=True)
    boost = inspect.Parameter("boost", inspect.Parameter.KEYWORD_ONLY, default=0.01, annotation=float)

    def merge(base: Tensor | None, models: Sequence[Tensor], *, boost: float = 0.01, **others: object) -> Tensor:
        out = others.pop(OUT, None)
        origin = wide(need_base(base))
        merged = method(origin, [wide(model) for model in models], **others)
        return base_plus(base, models, [1.0], extras=[raised(merged - origin, boost)], out=out)

    merge.__name__ = merge.__qualname__ = f"boosted_{method.__name__}"
    merge.__doc__ = f"Subspace Boosting of {method.__name__}: {method.__doc__}"
    merge.__signature__ = given.replace(parameters=[*given.parameters.values(), boost])  # type: ignore[attr-defined]
    return once(**{name: _widened(provider) for name, provider in providers_of(method).items()})(merge)


def _widened(provider: Provider) -> Provider:
    """`provider` of sources in float32, under a name of its own."""

    @functools.wraps(provider)
    def widened(base: Tensor | None, models: Sequence[Tensor], **given: object) -> object:
        return provider(None if base is None else wide(base), [wide(model) for model in models], **given)

    widened.__qualname__ = f"{provider.__qualname__}, float32"
    return widened


# signatures.py reads these lines as they stand.
boosted_consensus = boosted(consensus)
boosted_task_arithmetic = boosted(task_arithmetic)
boosted_ties = boosted(ties)
