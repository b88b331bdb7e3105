"""The length of answers to another benchmark's examples, as an objective beside its score."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evohydra.families import LiveModel
from evohydra.scoring.benchmarks import Audited, Benchmark, BenchmarkError, Split


def answer_length(name: str, *, of: Callable[[str], Mapping[str, Benchmark]]) -> "dict[str, AnswerLength]":
    """The benchmark `name`: tokens of the answers to the examples of the one that `of` makes, negated.

    BenchmarkError where that is a group, or where its models write no answers.
    """
    made = list(of(f"{name}.of").values())
    if len(made) != 1 or not isinstance(made[0], Audited) or made[0].lacks("none"):
        raise BenchmarkError(f"benchmark.{name}.of: expected one benchmark whose models write answers")
    return {name: AnswerLength(name, made[0])}


class AnswerLength:
    """Fewer tokens are better: the score of an example is minus their number."""

    def __init__(self, name: str, of: Benchmark) -> None:
        self.name, self._of, self.families = name, of, of.families
        self.title = f"{name} (tokens of an answer, negated)"

    def size(self, split: Split) -> int:
        """The number of examples in `split`."""
        return self._of.size(split)

    def identity(self) -> dict[str, object]:
        """That of the benchmark whose answers are counted, and what is counted."""
        return {**self._of.identity(), "counted": "tokens"}

    def __call__(self, live: LiveModel, split: Split, examples: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Minus the tokens of each answer, (n,)."""
        assert isinstance(self._of, Audited)
        places = range(self.size(split)) if examples is None else examples
        given = self._of.asked(live, split, list(places))
        return np.array([-float(answer.tokens or 0) for answer in given], dtype=np.float64)
