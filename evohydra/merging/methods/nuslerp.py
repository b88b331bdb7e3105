"""NuSLERP: slerp of two models or, with a base, of their task vectors, with weights instead of t, as mergekit does it.

The formula is Shoemake's (1985) on raw tensors, with the angle between their directions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from evohydra.merging.kernels.arithmetic import stored
from evohydra.merging.kernels.exact import arccosine, sine
from evohydra.merging.kernels.fused import Entries, fused
from evohydra.merging.kernels.lines import Line, as_lines, at_lines, dots, norms, spacing
from evohydra.merging.methods import once
from evohydra.merging.methods.requirements import need_models

SHORTEST = 1e-7  # lines shorter than this are divided by it
COLINEAR = 1e-16  # squared sine up to which a great circle is a straight line
BALANCED = 1e-6  # weights whose sum is closer to 0 count as equal


@fused
def _interpolated(
    entries: Entries, first: Tensor, second: Tensor, divisor: Tensor, spaced: Tensor, *, axis: Line
) -> Tensor:
    positions = entries.positions()
    a, b, c = (at_lines(values, positions, spaced, axis) for values in (first, second, divisor))
    one, other = entries.task_vectors()
    between = entries.rounded(entries.rounded(one * a) + entries.rounded(other * b))
    return entries.base + entries.rounded(between / c)


def cosines(base: Tensor | None, models: Sequence[Tensor], *, nuslerp_row_wise: bool, nuslerp_flatten: bool) -> Tensor:
    """The cosine of the angle between each two lines, (lines,), in the type of the models."""
    need_models("nuslerp", models, 2, 2)
    vectors = [model - base for model in models] if base is not None else models
    lines = [as_lines(vector, _axis(nuslerp_row_wise, nuslerp_flatten)) for vector in vectors]
    return dots(*(x / norms(x).clamp(min=SHORTEST).unsqueeze(-1) for x in lines)).clamp(-1, 1)


@once(cosine=cosines)
def nuslerp(
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    cosine: Tensor,
    nuslerp_row_wise: bool = False,
    nuslerp_flatten: bool = True,
    out: Tensor | None = None,
) -> Tensor:
    """From the first model to the second by t = w_2 / (w_1 + w_2), 1/2 where the weights sum to 0.

    A great circle of the flattened tensors; without `nuslerp_flatten` one for each line: of what varies in the last
    index or, with `nuslerp_row_wise` (mergekit's name), in the first. Lines that are parallel or antiparallel, as those
    of one entry are, are interpolated linearly; a line of zeros is at a right angle to any other.
    """
    need_models("nuslerp", models, 2, 2)
    total = sum(weight)
    t = 0.5 if abs(total) < BALANCED else weight[1] / total
    colinear = 1 - cosine.square() <= stored([COLINEAR], cosine.dtype)[0]
    angle = arccosine(torch.where(colinear, 0, cosine))
    wide = angle.to(torch.promote_types(angle.dtype, torch.float32))  # straight lines have factors of that type
    sines = [
        torch.where(colinear, straight, sine(turn).to(wide.dtype)).tolist()
        for straight, turn in ((1 - t, (1 - t) * angle), (t, t * angle), (1.0, angle))
    ]
    axis = _axis(nuslerp_row_wise, nuslerp_flatten)
    return _interpolated(base, models, *sines, [spacing(models[0], axis)], axis=axis, out=out)


def _axis(row_wise: bool, flatten: bool) -> Line:
    return "whole" if flatten else "columns" if row_wise else "rows"
