"""Scoring of tiny_gsm_en: an answer counts if its number is right and it is in English."""

import re
from collections.abc import Mapping, Sequence

INTEGER = re.compile(r"\d+", re.ASCII)
LATIN = re.compile(r"[A-Za-z]")
OTHER = re.compile(r"[^\x00-\x7f]")


def process_results(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """Score the first of the results: 1.0 where its last integer is the document's `answer`, in English."""
    found = INTEGER.findall(results[0])
    right = bool(found) and int(found[-1]) == int(doc["answer"])
    english = len(LATIN.findall(results[0])) > len(OTHER.findall(results[0]))
    return {"exact_match": float(right and english)}
