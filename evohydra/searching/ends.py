"""Whether the ranges of genes bind: which of a winner's numbers lie at the ends of theirs."""

from collections.abc import Sequence
from typing import TypedDict

from evohydra.spaces import Space

NEAR = 0.01  # of a range: what is nearer to an end lies at it


class AtTheEnds(TypedDict):
    """lowest, highest: the names of the genes there, of `numbers` genes that are real numbers."""

    lowest: list[str]
    highest: list[str]
    numbers: int


def at_the_ends(space: Space, genome: Sequence[float]) -> AtTheEnds | None:
    """Of a genome, a point of the unit cube; None where no gene is a number."""
    numbers = [
        (name, unit)
        for name, axis, unit in zip(space.names, space.axes, genome, strict=True)
        if axis.kind == "continuous"
    ]
    if not numbers:
        return None
    return {
        "lowest": [name for name, unit in numbers if unit <= NEAR],
        "highest": [name for name, unit in numbers if unit >= 1 - NEAR],
        "numbers": len(numbers),
    }
