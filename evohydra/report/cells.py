"""Numbers as tables write them."""

from collections.abc import Iterable

from evohydra.files import Plain


def number(value: float | None) -> str:
    """With three places; a dash for none."""
    return "-" if value is None else f"{value:.3f}"


def interval(score: Plain) -> str:
    """From where to where a score may lie; a dash for none."""
    return "-" if score["score"] is None else f"{number(score['low'])} to {number(score['high'])}"


def mean(values: Iterable[float | None]) -> float | None:
    """Of the values that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
