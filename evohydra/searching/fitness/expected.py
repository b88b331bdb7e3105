"""On how many examples a kind of fitness will score the genomes of a search: what a plan is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Between:
    """A number that is not known before: at least, what to expect, at most."""

    low: float
    likely: float
    high: float

    @classmethod
    def known(cls, value: float) -> "Between":
        """One that is."""
        return cls(value, value, value)

    def __add__(self, other: "Between") -> "Between":
        return Between(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def times(self, factor: float) -> "Between":
        """All three, multiplied."""
        return Between(self.low * factor, self.likely * factor, self.high * factor)


NOTHING = Between(0, 0, 0)


@dataclass(frozen=True)
class Course:
    """A search as its optimizer asks for it: `genomes` in all, in generations of these sizes."""

    genomes: int
    generations: tuple[int, ...]


@dataclass(frozen=True)
class Expected:
    """Examples that a whole search scores, by benchmark.

    metric: by the benchmark's own metric; likelihood: by the likelihood of right answers, under its name. questions:
    that each source and the uniform merge answer before the search. sources: whether all sources are scored on all
    search examples.
    """

    metric: Mapping[str, Between]
    likelihood: Mapping[str, Between] = field(default_factory=dict)
    questions: Mapping[str, int] = field(default_factory=dict)
    sources: bool = False


@runtime_checkable
class Foretells(Protocol):
    """A kind of fitness that knows how many examples it will want."""

    def expected(self, course: Course) -> Expected:
        """The examples of a whole search."""
        ...


def rejected(whole: float, least: float | None) -> Between:
    """Examples of genomes of which broken ones stop early (`least`, None: none does): at best all, usually few."""
    return Between.known(whole) if least is None or least >= whole else Between(least, 0.9 * whole, whole)
