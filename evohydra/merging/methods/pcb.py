"""PCB-Merging: the entries of task vectors compete, within their own and with the others (arXiv 2410.02396)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.arithmetic import wide
from evohydra.merging.kernels.exact import exponential_less_one
from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.methods import once
from evohydra.merging.methods.requirements import need_base, need_models
from evohydra.merging.methods.task_vectors import check_weights, task_vectors, total

BLOCK = 2**20  # entries that are float64 at a time
OUTLIERS = 1e-4  # of all entries: the largest and smallest that the published code clamps
LEAST = 1e-12  # what sums of scales are divided by at least, as in the published code
FAR = 40.0  # tanh of more is 1


def competition(base: Tensor | None, models: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], ...]:
    """For each model the scores of its entries, of its shape, the same sorted, (n,), and the range of |tau|, (2,).

    Scores are float32: exp(N * norm(|tau_k|)^2) * tanh(tau_k * sum_j tau_j) of N models, where norm takes the clamped
    magnitudes of the tensor to [0, 1].
    """
    need_models("pcb", models, 1)
    vectors = [wide(vector) for vector in task_vectors(base, models)]
    whole, made = total(vectors).reshape(-1), []
    for vector in vectors:
        flat, scores = vector.reshape(-1), torch.empty(vector.shape, dtype=torch.float32, device=vector.device)
        size = flat.numel()
        ends = flat.new_zeros(2)
        if size:
            outside = int(size * OUTLIERS)
            ends = torch.stack([flat.abs().kthvalue(rank).values for rank in (outside + 1, size - outside)])
        for start in range(0, size, BLOCK):
            part = slice(start, start + BLOCK)
            scores.view(-1)[part] = _scores(flat[part].double(), whole[part].double(), ends.double(), len(vectors))
        made.append((scores, scores.reshape(-1).sort().values, ends))
    return tuple(made)


def _scores(vector: Tensor, whole: Tensor, ends: Tensor, count: int) -> Tensor:
    reach = ends[1] - ends[0]
    norm = (vector.abs().clamp(ends[0], ends[1]) - ends[0]) / torch.where(reach > 0, reach, 1.0)
    within = 1 + exponential_less_one(count * norm.square())
    grown = exponential_less_one((2 * vector * whole).clamp(-FAR, FAR))
    return within * (grown / (grown + 2))  # tanh x = (e^2x - 1) / (e^2x + 1)


@fused
def _pcb(
    entries: Entries,
    weights: Tensor,
    scaling: Tensor,
    lowest: Tensor,
    gaps: Tensor,
    tops: Tensor,
    smallest: Tensor,
    largest: Tensor,
) -> Tensor:
    merged = scales = torch.zeros_like(entries.base)
    for k, vector in enumerate(entries.task_vectors()):
        scores = wide(entries.extras[k])
        scale = torch.maximum((scores - lowest[k]) / gaps[k], torch.zeros_like(scores))
        scale = torch.where(scores >= tops[k], 1.0, scale)
        clamped = torch.minimum(torch.maximum(vector.abs(), smallest[k]), largest[k]) * torch.sign(vector)
        merged = merged + weights[k] * scale * clamped
        scales = scales + scale
    return entries.base + scaling * (merged / torch.maximum(scales, torch.full_like(scales, LEAST)))


@once(competing=competition)
def pcb(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    competing: tuple[tuple[Tensor, ...], ...],
    weight: Sequence[float],
    density: float = 0.1,
    scaling: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """theta_base + scaling * sum_k w_k beta_k tau_k / sum_k beta_k, entry by entry.

    Section 3.2, with the weights of section 3.3 that the paper searches by CMA-ES. beta_k follows the published code,
    which multiplies exp(N norm(|tau_k|)^2) by tanh(tau_k * sum_j tau_j) where the paper has softmaxes. Of the scores of
    each tensor the `density` largest stay, linearly from 0 for the least of them to 1 for the largest; 0 keeps none. Of
    scores that are all the same all stay where they are positive. The 0.01 % largest and smallest magnitudes are
    clamped. The published code looks at the whole model at once, not at each tensor.
    """
    check_weights(weight, models, normalize=False)
    if not 0.0 <= density <= 1.0:
        raise ValueError(f"density: expected a share from 0 to 1, got {density}")
    cuts = [_cut(ranked, density) for _, ranked, _ in competing]
    lowest, gaps, tops = ([cut[at] for cut in cuts] for at in range(3))
    smallest, largest = ([float(ends[at]) for _, _, ends in competing] for at in range(2))
    numbers = ([float(w) for w in weight], [float(scaling)], lowest, gaps, tops, smallest, largest)
    return _pcb(need_base(base), models, *numbers, extras=[scores for scores, _, _ in competing], out=out)


def _cut(ranked: Tensor, density: float) -> tuple[float, float, float]:
    """The score from which on entries count, how far it is from the largest one, and from which on they count whole."""
    size = ranked.numel()
    first = int(size * (1 - density))
    if not size:
        return 0.0, 1.0, float("inf")
    top = float(ranked[-1])
    if first < size and (least := float(ranked[first])) < top:
        return least, top - least, top
    return top, 1.0, top if first < size and top > 0 else float("inf")
