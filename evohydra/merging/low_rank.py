"""Low-rank changes of tensors: scale * B A, as LoRA adapters hold them (arXiv 2106.09685, eq. 3), and sums of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from evohydra.merging.checkpoints import CheckpointReader, TensorSource


@dataclass(frozen=True)
class LowRank:
    """scale * up @ down, with up (out, r) and down (r, in) in float32.

    `transposed`: the tensor that it changes is (in, out). `embedding`: a product that PEFT rounds to the type of the
    embeddings before it adds it.
    """

    up: Tensor
    down: Tensor
    scale: float = 1.0
    transposed: bool = False
    embedding: bool = False

    @property
    def rank(self) -> int:
        """r."""
        return self.down.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of both factors."""
        return self.up.nbytes + self.down.nbytes

    def delta(self) -> Tensor:
        """The change, of the tensor's shape, in float32; the order of sums and roundings is PEFT's."""
        product = self.up @ self.down
        product = product.T if self.transposed else product
        return product if self.scale == 1 else product.mul_(self.scale)  # a pass over memory less, the same bits

    def added_to(self, weight: Tensor, of_weight: float = 1.0, out: Tensor | None = None) -> Tensor:
        """of_weight * weight + the change in the type of `weight`, rounded once: a new tensor, or `out` of that type.

        It is written into `out` where nothing has to be rounded: look at what is returned.
        """
        delta = self.delta()
        delta = delta.to(weight.dtype) if self.embedding else delta
        if out is not None and of_weight == 1 and weight.dtype == delta.dtype:
            return torch.add(weight, delta, out=out)
        return (weight + delta if of_weight == 1 else weight.float() * of_weight + delta).to(weight.dtype)


@dataclass(frozen=True)
class Adaptation:
    """A tensor as that called `name` in `origin`, with a change or without one."""

    origin: CheckpointReader
    name: str
    change: LowRank | None = None


@runtime_checkable
class Factored(Protocol):
    """Tensors of which some are those of another checkpoint with low-rank changes."""

    def factors(self, name: str) -> Adaptation | None:
        """What the tensor `name` is made of; None where it is no sum of a stored tensor and a low-rank product."""
        ...


def factors_of(source: TensorSource, name: str) -> Adaptation | None:
    """What the tensor `name` of `source` is made of: one that is stored is itself, without a change."""
    if isinstance(source, Factored):
        return source.factors(name)
    return Adaptation(source, name) if isinstance(source, CheckpointReader) else None


@dataclass(frozen=True)
class Beside:
    """The changes that several adapters make of one tensor, side by side: up (out, sum of r), down (sum of r, in).

    `up` is multiplied by the scales; `ranks` are those of the adapters, 0 for one that leaves the tensor as it is.
    """

    change: LowRank | None
    ranks: tuple[int, ...]
    scales: tuple[float, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all factors."""
        return self.change.nbytes if self.change else 0

    def weighed(self, coefficients: Sequence[float]) -> LowRank | None:
        """sum_k c_k scale_k B_k A_k, as one product of the ranks' sum; None where nothing changes."""
        if self.change is None:
            return None
        columns = [c for c, rank in zip(coefficients, self.ranks, strict=True) for _ in range(rank)]
        return replace(self.change, up=self.change.up * self.change.up.new_tensor(columns))

    def apart(self) -> list[tuple[Tensor, Tensor]]:
        """Up (out, r) and down (r, in) of each adapter, both with the root of its scale, a sign in `down`.

        Of one that leaves the tensor as it is they have the rank 0.
        """
        if self.change is None:
            return []
        roots = [math.copysign(math.sqrt(abs(scale)) or 1.0, scale) for scale in self.scales]
        ups, downs = torch.split(self.change.up, [*self.ranks], 1), torch.split(self.change.down, [*self.ranks])
        return [(up / root, down * root) for up, down, root in zip(ups, downs, roots, strict=True)]


def beside(base: Adaptation | None, models: Sequence[Adaptation | None], device: torch.device) -> Beside | None:
    """The changes of `models` on `device`; None unless all, and the base, are of the same stored tensor."""
    known = [each for each in models if each is not None]
    if base is None or base.change is not None or len(known) < len(models):
        return None
    if any((each.origin.directory, each.name) != (base.origin.directory, base.name) for each in known):
        return None
    changes = [each.change for each in known if each.change is not None]
    if len({(change.transposed, change.embedding) for change in changes}) > 1:
        return None
    ranks = tuple(each.change.rank if each.change else 0 for each in known)
    scales = tuple(each.change.scale if each.change else 1.0 for each in known)
    if not changes:
        return Beside(None, ranks, scales)
    up = torch.cat([change.up * change.scale for change in changes], dim=1)
    down = torch.cat([change.down for change in changes])
    return Beside(replace(changes[0], up=up.to(device), down=down.to(device), scale=1.0), ranks, scales)


def nearest(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """The product of this rank that is nearest to `matrix` (m, n) (Eckart and Young), and what is left out.

    Returns up (m, r), down (r, n) and the share of the norm that is left out, 0 to 1; both factors have the roots of
    the singular values. Computed in float64.
    """
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    whole = float(s.square().sum())
    kept = min(rank, max(1, int((s > s[:1] * max(matrix.shape) * torch.finfo(torch.float32).eps).sum())))
    root = s[:kept].sqrt()
    left = (float(s[kept:].square().sum()) / whole) ** 0.5 if whole else 0.0
    return (u[:, :kept] * root).float().contiguous(), (root[:, None] * vt[:kept]).float().contiguous(), left
