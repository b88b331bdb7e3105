"""Scoring of tiny_gsm_ja: an answer counts if its number is right and it is in Japanese."""

import re
from collections.abc import Mapping, Sequence

INTEGER = re.compile(r"\d+", re.ASCII)
JAPANESE = re.compile(r"[\u3041-\u309f\u30a0-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
LATIN = re.compile(r"[A-Za-z]")


def has_number(answer: str, expected: str) -> bool:
    """Tell whether the answer's last integer is the expected one."""
    found = INTEGER.findall(answer)
    return bool(found) and int(found[-1]) == int(expected)


def is_japanese(answer: str) -> bool:
    """Tell whether the answer has more characters of Japanese script than Latin letters (so at least one)."""
    return len(JAPANESE.findall(answer)) > len(LATIN.findall(answer))


def process_results(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """Score the first of the results against the document's `answer`.

    Returns 1.0 or 0.0 each for `exact_match` (number right, in Japanese) and `number_match` (in any language).
    """
    answer = results[0]
    number = has_number(answer, doc["answer"])
    return {"exact_match": float(number and is_japanese(answer)), "number_match": float(number)}
