"""Regular expressions from files and settings: whatever they say, they are compiled and tried within bounds."""

import functools
import math
import re
from typing import Any

import regex

SECONDS = 1.0  # for one text; names of tensors are matched within microseconds
LONGEST = 2000  # characters
MOST_REPEATS = 1000  # what the counts {m,n} of a pattern may multiply to: each is a copy when it is compiled
COUNT = re.compile(r"\{(\d*),?(\d*)\}")


def check_pattern(pattern: str, where: str) -> None:
    """ValueError, which names `where` it stands, for what is no regular expression, or one beyond all bounds."""
    if len(pattern) > LONGEST:
        raise ValueError(f"{where}: expected a regular expression of at most {LONGEST} characters, got {len(pattern)}")
    counts = [max(int(bound[-6:]) for bound in found if bound) for found in COUNT.findall(pattern) if any(found)]
    if math.prod(max(1, count) for count in counts) > MOST_REPEATS:
        raise ValueError(f"{where}: expected counts of at most {MOST_REPEATS} together, got {_short(pattern)}")
    try:
        re.compile(pattern)  # which has no recursion
        _compiled(pattern)
    except (re.error, regex.error, RecursionError, OverflowError, ValueError) as error:
        raise ValueError(f"{where}: {_short(pattern)} is no regular expression: {error}") from error


def matches_whole(pattern: str, text: str, where: str) -> bool:
    """Whether `pattern` is all of `text`; ValueError, which names `where` it stands, where that takes too long."""
    return _tried(pattern, text, where, "fullmatch")


def found_in(pattern: str, text: str, where: str) -> bool:
    """Whether `pattern` is anywhere in `text`; ValueError, which names `where` it stands, where that takes too long."""
    return _tried(pattern, text, where, "search")


def _tried(pattern: str, text: str, where: str, how: str) -> bool:
    check_pattern(pattern, where)
    try:
        return getattr(_compiled(pattern), how)(text, timeout=SECONDS) is not None
    except TimeoutError as error:
        raise ValueError(
            f"{where}: {_short(pattern)} takes more than {SECONDS:g} s for the one name {text[:100]!r}; write it "
            "without repeats inside of repeats"
        ) from error


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    return regex.compile(pattern)


def _short(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 100 else f"{pattern[:100]}...")
