"""How likely a model finds right answers: scores beside a benchmark's own, without generating anything.

They have names of their own ("log-likelihood per token of NAME", "likelihood per token of NAME") wherever scores are
named, in jobs, records and files, so that they are never taken for the benchmark's metric, or one for the other.
"""

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from evohydra.families import LiveModel
from evohydra.scoring.benchmarks import Benchmark, BenchmarkError, Split

Per = Literal["token", "byte"]
PERS: tuple[Per, ...] = get_args(Per)
Scale = Literal["log", "probability"]
MEASURES: Mapping[Scale, str] = {"log": "log-likelihood", "probability": "likelihood"}
KINDS: tuple[tuple[Per, Scale], ...] = tuple(itertools.product(PERS, MEASURES))
logger = logging.getLogger(__name__)
LOWEST = -100.0  # of an example: a model may rule an answer out altogether


@runtime_checkable
class Likely(Protocol):
    """A benchmark with references: it can say how likely a model finds them.

    complete_references: whether they are all that a model should write; False where they are only the end of it, whose
    likelihood straight after the prompt says little of a model that calculates first. None: not known.
    """

    complete_references: bool | None

    def size(self, split: Split) -> int:
        """The number of examples in `split`."""
        ...

    def check_references(self) -> None:
        """BenchmarkError, before anything is scored, where it has none that a model can be asked for."""
        ...

    def log_likelihoods(
        self, live: LiveModel, split: Split, examples: Sequence[int] | None, per: Per
    ) -> NDArray[np.float64]:
        """One number for each example of `split`, or of those at `examples` (n,): at most 0, at least LOWEST.

        Of an answer in words its log-probability (natural) given the prompt, for each token or byte of it; of several
        right answers the largest. Of a choice its log-probability among the choices, whatever `per` says; of a picture
        the one that a judge gives to what it should show.
        """
        ...


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihoods of a benchmark, or their exponentials, called as a benchmark is."""

    benchmark: Likely
    per: Per
    scale: Scale

    def size(self, split: Split) -> int:
        """The number of examples in `split`."""
        return self.benchmark.size(split)

    def __call__(self, live: LiveModel, split: Split, examples: Sequence[int] | None = None) -> NDArray[np.float64]:
        """(n,), see `Likely.log_likelihoods`; of the scale `probability` in [0, 1]."""
        found = self.benchmark.log_likelihoods(live, split, examples, self.per)
        return found if self.scale == "log" else np.exp(found)


def likelihood_name(benchmark: str, per: Per, scale: Scale = "log") -> str:
    """What the likelihoods of this benchmark are called."""
    return f"{MEASURES[scale]} per {per} of {benchmark}"


def benchmark_of(name: str) -> str:
    """The benchmark that scores of this name belong to: of its own scores the name itself."""
    for per, scale in KINDS:
        name = name.removeprefix(likelihood_name("", per, scale))
    return name


def measure_of(names: Iterable[str]) -> str | None:
    """What scores of these names are: "log-likelihood" or "likelihood"; None where all are of a benchmark's metric."""
    others = [name for name in names if benchmark_of(name) != name]
    return next((word for word in MEASURES.values() if others and others[0].startswith(word)), None)


def likelihoods_of(benchmarks: Mapping[str, Benchmark]) -> dict[str, Likelihood]:
    """By their names those of all benchmarks that have references."""
    likely = {name: each for name, each in benchmarks.items() if isinstance(each, Likely)}
    return {
        likelihood_name(name, per, scale): Likelihood(each, per, scale)
        for name, each in likely.items()
        for per, scale in KINDS
    }


INCOMPLETE = (
    "the references of benchmark {name!r} are only the end of what a model should write: how likely they are straight "
    "after the prompt may say little of a model that calculates first. The checks (fitness.check_every) tell"
)


def check_likely(benchmarks: Mapping[str, Benchmark]) -> None:
    """BenchmarkError where one of the benchmarks cannot be searched by the likelihood of its references."""
    for name, benchmark in benchmarks.items():
        if not isinstance(benchmark, Likely):
            raise BenchmarkError(
                f"fitness=likelihood: benchmark {name!r} has no likelihood of right answers (expected an lm-eval task "
                "whose answers are texts or choices, questions about images, or pictures and a judge that gives "
                "probabilities); choose fitness=full, or another benchmark"
            )
        benchmark.check_references()
        if benchmark.complete_references is False:
            logger.warning("fitness=likelihood: %s", INCOMPLETE.format(name=name))
