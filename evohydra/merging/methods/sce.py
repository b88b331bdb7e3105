"""SCE: select entries by variance, weigh models by what is left, erase minority signs (arXiv 2408.07990, 3.2)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evohydra.merging.kernels.arithmetic import rounded, stored, wide
from evohydra.merging.kernels.exact import added_in_order
from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.kernels.ranking import BELOW_ALL, BLOCK, Cut, Ranking, Values
from evohydra.merging.methods import once
from evohydra.merging.methods.requirements import need_base
from evohydra.merging.methods.task_vectors import total
from evohydra.merging.methods.trimming import at_least, keep

EXACT = 2**16
SMALLEST_SUM = 1e-6  # weights that sum to less count as equal, and divisors are at least this


def _variance(deltas: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    mean = total(deltas) / len(deltas)
    return rounded(total([(delta - mean) * (delta - mean) for delta in deltas]) / len(deltas), dtype)


@fused
def _sce(
    entries: Entries,
    weight: Tensor,
    least: Tensor,
    smallest: Tensor,
    *,
    select: bool,
) -> Tensor:
    deltas = entries.task_vectors()
    if select:
        chosen = _variance(deltas, entries.dtype) >= least[0]
        deltas = [keep(delta, chosen) for delta in deltas]
    sign = torch.where(total(deltas) >= 0, 1.0, -1.0)
    agrees = [delta * sign > 0 for delta in deltas]
    terms = [keep(entries.rounded(delta * weight[k]), agrees[k]) for k, delta in enumerate(deltas)]
    shares = [torch.where(which, weight[k], 0.0) for k, which in enumerate(agrees)]
    divisor = torch.maximum(entries.rounded(total(shares)), smallest[0])
    return entries.base + entries.rounded(entries.rounded(total(terms)) / divisor)


class Variances:
    """The entries of a tensor by the variance of the models' task vectors, and how much of each model a cut selects."""

    def __init__(self, base: Tensor | None, models: Sequence[Tensor]) -> None:
        self.size = models[0].numel()
        values, squares = _parts(base, models)
        self.ranking = Ranking(self.size, values)
        # (models, patterns + 1): the sum of squares of the entries whose variance has a smaller bit pattern
        self._below = np.zeros((len(models), 2**15 + 1))
        self._total = np.zeros(len(models))
        for start in range(0, self.size, BLOCK):
            stop = min(self.size, start + BLOCK)
            parts = [square.cpu().numpy() for square in squares(start, stop)]
            self._total += [part.sum() for part in parts]
            if self.ranking.by_pattern:
                patterns = values(start, stop).view(torch.int16).cpu().numpy()
                self._below[:, 1:] += [np.bincount(patterns, part, 2**15) for part in parts]
        self._below = self._below.cumsum(axis=1) if self.ranking.by_pattern else self._below[:, :0]
        self.nbytes: int = self.ranking.nbytes + self._below.nbytes

    def select(self, base: Tensor | None, models: Sequence[Tensor], share: float) -> tuple[Cut, list[float]]:
        """The cut that selects int(share * nonzero) entries, and the sum of squares of each model's selected entries.

        In tensors of more than EXACT 16-bit floats, entries that equal the cut's value count with their average, which
        the type of the sums can hardly tell from their own.
        """
        values, squares = _parts(base, models)
        kept = int(self.ranking.nonzero() * share)
        cut = self.ranking.largest(kept, values) if share < 1 else BELOW_ALL
        if cut == BELOW_ALL or kept == 0:
            return cut, list(self._total * (cut == BELOW_ALL))
        if not self.ranking.by_pattern or self.size <= EXACT:
            return cut, list(self._summed(cut, values, squares))
        below, equal = self.ranking.around(cut.value)
        pattern = int(torch.tensor([cut.value], dtype=models[0].dtype).view(torch.int16))
        taken = (kept - (self.size - below - equal)) / equal
        upto, under = self._below[:, pattern + 1], self._below[:, pattern]
        return cut, list(self._total - upto + taken * (upto - under))

    def _summed(self, cut: Cut, values: Values, squares: Callable[[int, int], list[Tensor]]) -> NDArray[np.float64]:
        total = np.zeros(len(self._total))
        for start in range(0, self.size, BLOCK):
            stop = min(self.size, start + BLOCK)
            variance, places = values(start, stop), torch.arange(start, stop)
            chosen = (variance > cut.value) | ((variance == cut.value) & (places.to(variance.device) <= cut.last))
            total += [float(square[chosen].sum()) for square in squares(start, stop)]
        return total


def variances(base: Tensor | None, models: Sequence[Tensor]) -> Variances:
    """A provider for `once`."""
    return Variances(base, models)


def _parts(base: Tensor | None, models: Sequence[Tensor]) -> tuple[Values, Callable[[int, int], list[Tensor]]]:
    """Variances, and float64 squares of each task vector, as functions of a range of flat indices."""
    flat_base, flat = need_base(base).reshape(-1), [model.reshape(-1) for model in models]
    dtype = flat_base.dtype

    def deltas(start: int, stop: int) -> list[Tensor]:
        return [rounded(wide(model[start:stop]) - wide(flat_base[start:stop]), dtype) for model in flat]

    def values(start: int, stop: int) -> Tensor:
        return _variance(deltas(start, stop), dtype).to(dtype)

    def squares(start: int, stop: int) -> list[Tensor]:
        return [rounded(delta * delta, dtype).to(torch.float64) for delta in deltas(start, stop)]

    return values, squares


def _weights(sums: Sequence[float], size: int, dtype: torch.dtype) -> list[float]:
    """The mean square of what is left of each task vector, over the sum of all; equal where that is next to nothing."""
    means = torch.tensor([value / max(1, size) for value in sums]).to(dtype)
    whole = added_in_order(means).item()
    if abs(whole) < SMALLEST_SUM:
        return stored([1 / len(sums)] * len(sums), dtype)
    return list(map(float, (means / whole).tolist()))


@once(variances=variances)
def sce(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    select_topk: float = 1.0,
    variances: Variances | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """theta_base + the weighted mean of task vectors over the `select_topk` entries of largest variance.

    An entry counts where its sign is that of the sum. Of equal variances the first are selected; which ones mergekit
    takes is up to torch.topk.
    """
    if not 0 <= select_topk <= 1:
        raise ValueError(f"select_topk: expected a share in [0, 1], got {select_topk}")
    assert variances is not None
    cut, sums = variances.select(base, models, select_topk)
    dtype = models[0].dtype
    numbers = (_weights(sums, variances.size, dtype), at_least([cut], dtype), stored([SMALLEST_SUM], dtype))
    return _sce(need_base(base), models, *numbers, select=cut != BELOW_ALL, out=out)
