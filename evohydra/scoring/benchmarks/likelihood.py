"""How likely a model finds right answers: scores beside a benchmark's own, without generating anything.

They have names of their own ("log-likelihood per token of NAME") wherever scores are named, in jobs, records and files,
so that they are never taken for the benchmark's metric.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from evohydra.families import LiveModel
from evohydra.scoring.benchmarks import Benchmark, BenchmarkError, Split

Per = Literal["token", "byte"]
PERS: tuple[Per, ...] = get_args(Per)
LOWEST = -100.0  # of an example: a model may rule an answer out altogether


@runtime_checkable
class Likely(Protocol):
    """A benchmark with references: it can say how likely a model finds them."""

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
        right answers the largest. Of a choice its log-probability among the choices, whatever `per` says.
        """
        ...


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihoods of a benchmark, called as a benchmark is."""

    benchmark: Likely
    per: Per

    def size(self, split: Split) -> int:
        """The number of examples in `split`."""
        return self.benchmark.size(split)

    def __call__(self, live: LiveModel, split: Split, examples: Sequence[int] | None = None) -> NDArray[np.float64]:
        """(n,), see `Likely.log_likelihoods`."""
        return self.benchmark.log_likelihoods(live, split, examples, self.per)


def likelihood_name(benchmark: str, per: Per) -> str:
    """What the log-likelihoods of this benchmark are called."""
    return f"log-likelihood per {per} of {benchmark}"


def benchmark_of(name: str) -> str:
    """The benchmark that scores of this name belong to: of its own scores the name itself."""
    for per in PERS:
        name = name.removeprefix(likelihood_name("", per))
    return name


def likelihoods_of(benchmarks: Mapping[str, Benchmark]) -> dict[str, Likelihood]:
    """By their names those of all benchmarks that have references."""
    likely = {name: each for name, each in benchmarks.items() if isinstance(each, Likely)}
    return {likelihood_name(name, per): Likelihood(each, per) for name, each in likely.items() for per in PERS}


def check_likely(benchmarks: Mapping[str, Benchmark]) -> None:
    """BenchmarkError where one of the benchmarks cannot be searched by the likelihood of its references."""
    for name, benchmark in benchmarks.items():
        if not isinstance(benchmark, Likely):
            raise BenchmarkError(
                f"fitness=likelihood: benchmark {name!r} has no likelihood of right answers (expected an lm-eval task "
                "whose answers are texts or choices); choose fitness=full, or another benchmark"
            )
        benchmark.check_references()
