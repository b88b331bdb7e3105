"""Arcee Fusion: take from the model the entries whose change matters most (arcee.ai), as mergekit does it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.arithmetic import wide
from evohydra.merging.kernels.exact import added
from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.methods import once
from evohydra.merging.methods.requirements import need_base, need_models

EPSILON = 1e-8  # added to each probability
LONG = 2**14  # entries of a row


@fused
def _chosen(entries: Entries, threshold: Tensor) -> Tensor:
    change = entries.task_vectors()[0]
    return entries.base + change * (wide(entries.extras[0]) >= threshold)


def importances(base: Tensor | None, models: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The importance of each entry, and the three quartiles of these, (3,); both in the type of the models.

    |theta_1 - theta_base| * KL(softmax(theta_1) || softmax(theta_base)) of its row. The quartiles are exact: mergekit
    estimates those of tensors above 10^6 entries from a random sample.
    """
    need_models("arcee_fusion", models, 1, 1)
    origin, model = need_base(base), models[0]
    p, q = (torch.softmax(x, dim=-1) + EPSILON for x in (model, origin))
    # In the type of the models, as in mergekit: what the terms leave is small, and a better sum another choice.
    terms = p * torch.log(p / q)
    # torch would split the sum of a single long row among the threads.
    alone = terms.dim() == 1 and terms.numel() > LONG
    divergence = added(wide(terms)).to(terms.dtype) if alone else terms.sum(dim=-1, keepdim=True)
    importance = (model - origin).abs() * divergence
    last = importance.numel() - 1
    if last < 0:
        return importance, importance.new_zeros(3)
    flat = wide(importance.reshape(-1))
    quartiles = [flat.kthvalue(quarter * last // 4 + 1).values for quarter in (1, 2, 3)]
    return importance, torch.stack(quartiles).to(model.dtype)


@once(importance=importances)
def arcee_fusion(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    importance: tuple[Tensor, Tensor],
    spread: float = 1.5,
    out: Tensor | None = None,
) -> Tensor:
    """theta_1 where importance >= median + spread * (third - first quartile), else theta_base.

    Takes exactly one model beside the base; mergekit's spread is 1.5. Rows of one entry, and scalars, have no
    importance, which puts them at the threshold: they are the model's.
    """
    need_models("arcee_fusion", models, 1, 1)
    scores, quartiles = importance
    threshold = quartiles[1] + spread * (quartiles[2] - quartiles[0])
    return _chosen(need_base(base), models, [float(threshold)], extras=[scores], out=out)
