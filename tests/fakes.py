"""Parts of a run that misbehave, for tests to name by dotted path."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


class RaisingTracker:
    """Raises at one point: init, genome, finish or close."""

    def __init__(self, *, at: str, **_: object) -> None:
        self._at = at
        self._raise_at("init")

    def _raise_at(self, point: str) -> None:
        if point == self._at:
            raise ConnectionError(f"no service at {point}")

    def genome(self, record: object) -> None:
        self._raise_at("genome")

    def finish(self, summary: Mapping[str, Any], figures: Mapping[str, Path], winner: Path) -> None:
        self._raise_at("finish")

    def close(self, *, failed: bool) -> None:
        self._raise_at("close")


class Fussy:
    """Scores a model by the mean of its weights, and refuses the search evaluations that `refuses` counts.

    sick: what the machine refuses, which is no part of the benchmark: evaluations by split and number, "test 3".
    """

    sick: ClassVar[str] = ""

    def __init__(self, name: str, families: Sequence[str], refuses: str) -> None:
        self.name, self.families, self._refuses = name, tuple(families), re.compile(refuses)
        self._calls = 0
        self._of_split: dict[str, int] = {}

    def identity(self) -> dict[str, Any]:
        return {"kind": "fussy", "refuses": self._refuses.pattern, "splits": {}, "versions": {}}

    def size(self, split: str) -> int:
        return 2

    def __call__(self, live: Any, split: str, examples: Sequence[int] | None = None) -> NDArray[np.float64]:
        self._of_split[split] = self._of_split.get(split, 0) + 1
        if re.fullmatch(self.sick, f"{split} {self._of_split[split]}"):
            raise ValueError("sick")
        if split == "search":
            self._calls += 1
            if self._refuses.fullmatch(str(self._calls)):
                raise ValueError(f"cannot stand evaluation {self._calls}")
        mean = float(sum(parameter.detach().mean() for parameter in live.parameters.values()))
        return np.array([mean, mean / 2])[slice(None) if examples is None else list(examples)]


def fussy(name: str, *, families: Sequence[str] = ("causal_lm",), refuses: str = "") -> dict[str, Fussy]:
    return {name: Fussy(name, families, refuses)}


class Leaning:
    """Scores a model by the mean of its weights, times `sign`."""

    def __init__(self, name: str, families: Sequence[str], sign: float) -> None:
        self.name, self.families, self._sign = name, tuple(families), sign

    def identity(self) -> dict[str, Any]:
        return {"kind": "leaning", "sign": self._sign, "splits": {}, "versions": {}}

    def size(self, split: str) -> int:
        return 3

    def __call__(self, live: Any, split: str, examples: Sequence[int] | None = None) -> NDArray[np.float64]:
        mean = float(sum(parameter.mean() for parameter in live.parameters.values()))
        return np.full(3, self._sign * mean)[slice(None) if examples is None else list(examples)]


class Numberless:
    """Scores a model by the mean of its weights, but gives NaN in the calls for a split that `nan` counts: "test 3"."""

    def __init__(self, name: str, families: Sequence[str], nan: str) -> None:
        self.name, self.families, self._nan = name, tuple(families), re.compile(nan)
        self._calls: dict[str, int] = {}

    def identity(self) -> dict[str, Any]:
        return {"kind": "numberless", "nan": self._nan.pattern, "splits": {}, "versions": {}}

    def size(self, split: str) -> int:
        return 3

    def __call__(self, live: Any, split: str, examples: Sequence[int] | None = None) -> NDArray[np.float64]:
        self._calls[split] = self._calls.get(split, 0) + 1
        mean = float(sum(parameter.detach().mean() for parameter in live.parameters.values()))
        scores = np.array([mean, mean / 2, mean / 3])
        if self._nan.fullmatch(f"{split} {self._calls[split]}"):
            scores[1] = np.nan
        return scores[slice(None) if examples is None else list(examples)]


def numberless(name: str, *, families: Sequence[str] = ("causal_lm",), nan: str = "") -> dict[str, Numberless]:
    return {name: Numberless(name, families, nan)}


def leaning(name: str, *, sign: float, families: Sequence[str] = ("causal_lm",)) -> dict[str, Leaning]:
    return {name: Leaning(name, families, sign)}
