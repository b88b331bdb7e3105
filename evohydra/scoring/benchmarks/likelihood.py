"""How likely a model finds right answers: scores beside a benchmark's own, without generating anything.

They have names of their own ("log-likelihood per token of NAME", "likelihood per token of NAME") wherever scores are
named, in jobs, records and files, so that they are never taken for the benchmark's metric, or one for the other. Where
right answers are verified ones, the name has their digest: "log-likelihood per token (verified 0123456789ab) of NAME".
"""

import itertools
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from evohydra.scoring.benchmarks import Benchmark, BenchmarkError, Split

if TYPE_CHECKING:
    from evohydra.families import LiveModel

Per = Literal["token", "byte"]
PERS: tuple[Per, ...] = get_args(Per)
Scale = Literal["log", "probability"]
MEASURES: Mapping[Scale, str] = {"log": "log-likelihood", "probability": "likelihood"}
KINDS: tuple[tuple[Per, Scale], ...] = tuple(itertools.product(PERS, MEASURES))
NAME = re.compile(
    r"(?P<measure>log-likelihood|likelihood) per (?P<per>token|byte)(?: \(verified (?P<verified>[0-9a-f]{12})\))? of "
)
Texts = Mapping[int, Sequence[str]]  # by the place of an example in its split: right answers to it
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
        self, live: "LiveModel", split: Split, examples: Sequence[int] | None, per: Per
    ) -> NDArray[np.float64]:
        """One number for each example of `split`, or of those at `examples` (n,): at most 0, at least LOWEST.

        Of an answer in words its log-probability (natural) given the prompt, for each token or byte of it; of several
        right answers the largest. Of a choice its log-probability among the choices, whatever `per` says; of a picture
        the one that a judge gives to what it should show.
        """
        ...


@runtime_checkable
class Verifiable(Protocol):
    """A benchmark that can say of a model's answers, in the model's own words, whether they are right."""

    def size(self, split: Split) -> int:
        """The number of examples in `split`."""
        ...

    def check_verifiable(self) -> None:
        """BenchmarkError where models write no answers, or where their scores do not say which are right."""
        ...

    def written(self, live: "LiveModel", split: Split, examples: Sequence[int]) -> tuple[list[str], list[float]]:
        """What the model writes to each of `examples` (n,), up to its stop, and its score: 1 where it is right."""
        ...

    def log_likelihoods_of(
        self, live: "LiveModel", split: Split, examples: Sequence[int], per: Per, texts: Texts
    ) -> NDArray[np.float64]:
        """As `Likely.log_likelihoods`, where `texts` are the right answers to each of `examples` (n,)."""
        ...


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihoods of right answers, or their exponentials, called as a benchmark is.

    texts: the right answers, which the benchmark has judged (`Verifiable`); None: its own references (`Likely`).
    """

    benchmark: Likely | Verifiable
    per: Per
    scale: Scale
    texts: Texts | None = None

    def size(self, split: Split) -> int:
        """The number of examples in `split`."""
        return self.benchmark.size(split)

    def __call__(self, live: "LiveModel", split: Split, examples: Sequence[int] | None = None) -> NDArray[np.float64]:
        """(n,), see `Likely.log_likelihoods`; of the scale `probability` in [0, 1]. None: all that have `texts`."""
        if self.texts is None:
            assert isinstance(self.benchmark, Likely)
            found = self.benchmark.log_likelihoods(live, split, examples, self.per)
        else:
            assert isinstance(self.benchmark, Verifiable)
            places = sorted(self.texts) if examples is None else examples
            found = self.benchmark.log_likelihoods_of(live, split, places, self.per, self.texts)
        return found if self.scale == "log" else np.exp(found)


def likelihood_name(benchmark: str, per: Per, scale: Scale = "log", verified: str | None = None) -> str:
    """What the likelihoods of this benchmark are called; `verified`: the digest (12 digits) of its verified answers."""
    return f"{MEASURES[scale]} per {per}{f' (verified {verified})' if verified else ''} of {benchmark}"


def benchmark_of(name: str) -> str:
    """The benchmark that scores of this name belong to: of its own scores the name itself."""
    found = NAME.match(name)
    return name[found.end() :] if found else name


def verified_in(name: str) -> str | None:
    """The digest of verified answers in what scores are called; None where they are of other ones."""
    found = NAME.match(name)
    return found["verified"] if found else None


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


def of_verified(name: str, benchmarks: Mapping[str, Benchmark], texts: Texts) -> Likelihood:
    """The likelihoods of verified answers that are called `name`; `texts` are these answers."""
    found, benchmark = NAME.match(name), benchmarks[benchmark_of(name)]
    assert found is not None
    assert isinstance(benchmark, Verifiable)
    per = next(each for each in PERS if each == found["per"])
    scale = next(each for each, word in MEASURES.items() if word == found["measure"])
    return Likelihood(benchmark, per, scale, texts)


INCOMPLETE = (
    "the references of benchmark {name!r} are only the end of what a model should write: how likely they are straight "
    "after the prompt may say little of a model that calculates first. The checks (fitness.check_every) tell, and "
    "fitness.references=verified goes by right answers in models' own words"
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


def check_verifiable(benchmarks: Mapping[str, Benchmark]) -> None:
    """BenchmarkError where one of the benchmarks cannot say which of a model's answers are right."""
    for name, benchmark in benchmarks.items():
        if not isinstance(benchmark, Verifiable):
            raise BenchmarkError(
                f"fitness.references=verified: models write no answers for benchmark {name!r} that it could judge "
                "(expected an lm-eval task that generates text, or questions about images); choose "
                "fitness.references=task, or fitness=full"
            )
        benchmark.check_verifiable()
