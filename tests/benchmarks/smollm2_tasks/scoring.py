"""Scores answers of the tasks `steps`, `jnli` and `capitals` for lm-eval."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

NUMBER = re.compile(r"\d[\d,]*\.?\d*")


def step(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 where the last number of the answer is the result of a step of the worked solution."""
    found = NUMBER.findall(results[0])
    return {"right": float(bool(found) and float(found[-1].replace(",", "")) in doc["results"])}


def label(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 where the answer is the right label and nothing else."""
    return {"right": float(results[0].strip() == doc["answer"])}


def capital(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 where the answer begins with the name of the capital, whatever follows it."""
    return {"right": float(re.match(re.escape(doc["capital"]) + r"\b", results[0].strip(), re.IGNORECASE) is not None)}
