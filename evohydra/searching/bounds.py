"""The small language in which limits are given: `0.98`, `source best - 0.02`, `1.2 x source`, `base`."""

import re
from dataclasses import dataclass

NUMBER = r"\d+(?:\.\d+)?"
GRAMMAR = (
    rf"(?:(?P<factor>{NUMBER})\s*x\s+)?(?P<of>source|base)(?:\s+(?P<name>%s))?"
    rf"(?:\s*(?P<sign>[+-])\s*(?P<offset>{NUMBER}))?"
)
ANY_NAME = r"[\w.-]*[A-Za-z_][\w.-]*"
BEST = "source best"
EXPECTED = (
    "a number, or [NUMBER x] source [best | NAME] [+ NUMBER | - NUMBER], or the same of base; such as 0.98, "
    "'source best - 0.02', '1.2 x source', 'base - 0.01'"
)


@dataclass(frozen=True)
class Bound:
    """factor x the number of `reference` + offset; `reference` is BEST, the name of a source, "base", or None."""

    reference: str | None
    factor: float
    offset: float


def parse_bound(key: str, given: object, sources: tuple[str, ...]) -> Bound:
    """What is given as a bound; ValueError, which names `key`, for anything else."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        return Bound(None, 0.0, float(given))
    if isinstance(given, str) and re.fullmatch(NUMBER, given.strip()):
        return Bound(None, 0.0, float(given))
    names = sorted(("best", *sources), key=len, reverse=True)
    known = "|".join(map(re.escape, names))  # so that "best-0.02" is no name
    text = given.strip() if isinstance(given, str) else ""
    found = re.fullmatch(GRAMMAR % known, text) or re.fullmatch(GRAMMAR % ANY_NAME, text)
    if found is None:
        raise ValueError(f"{key}: expected {EXPECTED}; got {given!r}")
    if found["of"] == "base" and found["name"]:
        raise ValueError(f"{key}: there is one base only; got {given!r}")
    name = found["name"] or "best"
    if found["of"] == "source" and name != "best" and name not in sources:
        raise ValueError(f"{key}: expected one of the sources {', '.join(sources)}, got {name!r}")
    reference = "base" if found["of"] == "base" else BEST if name == "best" else name
    offset = float(found["offset"] or 0.0) * (-1 if found["sign"] == "-" else 1)
    return Bound(reference, float(found["factor"] or 1.0), offset)
