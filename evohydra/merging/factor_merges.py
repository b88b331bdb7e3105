"""Merges of adapters whose factors are merged instead of their products: `of: factors` among a merge's options.

A LoRA changes a weight by scale * B A. Here the method merges the B of all adapters, and their A, as tensors of their
own, and the product of both results is added to the base. The merge has the rank of one adapter. PEFT's
`add_weighted_adapter` does so (`combination_type` "ties", "dare_ties", ...). As B A = (B G)(G^-1 A) for every
invertible G, adapters that are the same model can give other merges. So products are the default.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from evohydra.merging.low_rank import Beside, LowRank
from evohydra.merging.signatures import FACTORS, OF
from evohydra.recipe import Group, Merge, Parameter

UP, DOWN = "up", "down"
ROOTED = ("weight", "scaling")  # parameters that multiply: each factor takes the root
Apply = Callable[[Merge, Group, str, Tensor, Sequence[Tensor]], Tensor]


def of_factors(node: Merge, group: Group) -> bool:
    """Whether the method of `group` merges the factors of adapters."""
    return {**node.options, **group.parameters}.get(OF) == FACTORS


def check_ranks(models: Sequence[str], together: Beside, name: str) -> None:
    """ValueError where the adapters `models` that change the tensor `name` have several ranks."""
    ranks = {model: rank for model, rank in zip(models, together.ranks, strict=True) if rank}
    if len(set(ranks.values())) > 1:
        found = ", ".join(f"{rank} ({model})" for model, rank in ranks.items())
        raise ValueError(f"of=factors: expected adapters of one rank, got {found} at {name!r}; of=products takes any")


def merged_factors(node: Merge, group: Group, name: str, together: Beside, apply: Apply) -> LowRank | None:
    """What is added to the base's tensor `name`; None where no adapter changes it.

    `apply` merges tensors by the method of `group`: merge, group, name, base, models. `together`: what the adapters
    change, of one rank r. The base of factors is 0, and so are those of an adapter that leaves the tensor as it is.
    """
    if together.change is None:
        return None
    rank = max(together.ranks)
    up, down = together.change.up[:, :rank] * 0, together.change.down[:rank] * 0
    of_models = [(each if each[0].numel() else (up, down)) for each in together.apart()]

    def merged(part: str, zeros: Tensor, factors: Sequence[Tensor]) -> Tensor:
        signed = part == DOWN  # as in PEFT
        rooted = replace(node, options=_rooted(node.options, signed))
        of_group = replace(group, parameters=_rooted(group.parameters, signed))
        return apply(rooted, of_group, f"{name}, {part}", zeros, [each.contiguous() for each in factors])

    return LowRank(
        up=merged(UP, up, [each for each, _ in of_models]),
        down=merged(DOWN, down, [each for _, each in of_models]),
        transposed=together.change.transposed,
        embedding=together.change.embedding,
    )


def _rooted(parameters: Mapping[str, Parameter], signed: bool) -> dict[str, Parameter]:
    """The parameters with the roots of those that multiply, so that the product has the whole; one factor has signs."""

    def root(value: float) -> float:
        return math.copysign(math.sqrt(abs(value)), value if signed else 1.0)

    def of(value: Parameter) -> Parameter:
        return tuple(map(root, value)) if isinstance(value, tuple) else root(float(value))

    return {name: of(value) if name in ROOTED else value for name, value in parameters.items()}
