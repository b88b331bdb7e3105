"""What limits of a search are set on: a benchmark's own score, what its answers are like, the distance from the base.

They have names of their own wherever scores are named, "truncated of NAME", so that none is taken for a benchmark's
metric. One number for each example, whose mean is the measure.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evohydra.scoring.benchmarks import Audited, Benchmark, BenchmarkError, GivenAnswer, Split

if TYPE_CHECKING:
    from evohydra.families import LiveModel
    from evohydra.families.sources import OpenSources

SCORE, TOKENS, DISTANCE = "score", "mean_tokens", "distance"
PERPLEXITY = "perplexity"  # per byte of a held-out text, whose numbers are nats per byte (see `HeldOutText`)
FROM_BASE = "distance from the base"
JAPANESE = re.compile(r"[\u3041-\u309f\u30a0-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
LATIN = re.compile(r"[A-Za-z]")
REFUSAL = re.compile(
    r"^\W*(i'?m sorry|i am sorry|sorry,|i can(no|')t|i am (not able|unable)|i'?m (not able|unable)|as an ai"
    r"|申し訳(ありません|ございません)|すみません|お答え(できません|できかねます)|回答(できません|を控え))",
    re.IGNORECASE,
)
GRAM = 6  # characters of an n-gram
LOOP = 0.5  # share of n-grams that occur more than once, from which on an answer repeats itself


def is_japanese(text: str) -> bool:
    """Whether it has more characters of Japanese script than Latin letters."""
    return len(JAPANESE.findall(text)) > len(LATIN.findall(text))


def repeats_itself(text: str) -> bool:
    """Whether most of its n-grams occur more than once, as in a loop."""
    grams = [text[at : at + GRAM] for at in range(len(text) - GRAM + 1)]
    return len(grams) > GRAM and 1 - len(set(grams)) / len(grams) > LOOP


def _tokens(answer: GivenAnswer) -> float:
    if answer.tokens is None:
        raise ValueError("guard: measure mean_tokens: it is not known how many tokens an answer has")
    return float(answer.tokens)


# Of an answer; 1.0 for yes and 0.0 for no, where it is a share.
OF_ANSWERS: Mapping[str, Callable[[GivenAnswer], float]] = {
    "truncated": lambda answer: float(answer.cut is not False),
    TOKENS: _tokens,
    "japanese": lambda answer: float(is_japanese(answer.text)),
    "refusals": lambda answer: float(bool(REFUSAL.match(answer.text))),
    "repetition": lambda answer: float(repeats_itself(answer.text)),
}
MEASURES = (*OF_ANSWERS, PERPLEXITY, DISTANCE)
NAME = re.compile(rf"(?P<measure>{'|'.join((SCORE, PERPLEXITY, *OF_ANSWERS))}) of (?P<benchmark>.+)", re.DOTALL)


def name_of(measure: str, benchmark: str | None) -> str:
    """What the numbers of a measure are called."""
    return FROM_BASE if measure == DISTANCE else f"{measure} of {benchmark}"


@dataclass
class Measures:
    """The measures of one worker. Answers are asked for once for all measures of a model, see `begin`."""

    benchmarks: Mapping[str, Benchmark]
    sources: "OpenSources"
    _answers: dict[str, tuple[tuple[int, ...], list[GivenAnswer]]] = field(default_factory=dict)

    def begin(self) -> None:
        """Another model's numbers are asked for."""
        self._answers = {}

    def __call__(self, name: str, live: "LiveModel", split: Split, examples: Sequence[int]) -> NDArray[np.float64]:
        """(n,): the numbers called `name` for the examples at these places of a split; of a distance one."""
        if name == FROM_BASE:
            return np.array([distance(live, self.sources)])
        found = NAME.fullmatch(name)
        assert found is not None
        benchmark = self.benchmarks[found["benchmark"]]
        if found["measure"] in (SCORE, PERPLEXITY):
            return benchmark(live, split, list(examples))
        assert isinstance(benchmark, Audited)
        key = f"{split} of {benchmark.name}"
        if key not in self._answers or self._answers[key][0] != tuple(examples):
            self._answers[key] = tuple(examples), benchmark.asked(live, split, list(examples))
        return np.array([OF_ANSWERS[found["measure"]](answer) for answer in self._answers[key][1]], dtype=np.float64)


def measured_on(name: str) -> str:
    """The benchmark or text that numbers of this name are of; the name itself where it is none of a measure."""
    found = NAME.fullmatch(name)
    return found["benchmark"] if found else name


def is_measure(name: str) -> bool:
    """Whether numbers of this name are those of a measure."""
    return name == FROM_BASE or NAME.fullmatch(name) is not None


def check_measurable(measure: str, benchmark: Benchmark) -> None:
    """BenchmarkError where a benchmark has no answers that this measure is of."""
    reason = "its models write no texts" if not isinstance(benchmark, Audited) else benchmark.lacks("none")
    if measure != SCORE and reason:
        raise BenchmarkError(f"guard: measure {measure} of {benchmark.name!r}: {reason}")


def distance(live: "LiveModel", sources: "OpenSources") -> float:
    """The Euclidean distance of all weights from the base's, as a share of the length of the latter."""
    import torch

    assert sources.base is not None
    base = sources.tensors[sources.base.name]
    apart = length = 0.0
    for name, tensor in live.parameters.items():
        if name in base.shapes:
            original = base.read(name).to(tensor.device, torch.float32)
            apart += float((tensor.detach().float() - original).double().square().sum())
            length += float(original.double().square().sum())
    return float(np.sqrt(apart / length))
