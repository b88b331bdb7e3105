"""What crosses the worker boundary: a recipe to score, its scores, and why there are none. Plain data alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from evohydra.recipe import Node
from evohydra.scoring.benchmarks import CommonAnswer, Split

Examples = Mapping[str, Sequence[int]]  # for each benchmark, places in a split
Scores = Mapping[str, Sequence[float]]  # for each benchmark, example by example
Verified = Mapping[str, Mapping[int, Sequence[str]]]  # by the name of a likelihood: right answers by an example's place


@dataclass(frozen=True)
class Job:
    """A recipe to be scored on a split, or (`examples`) on those of its examples that are named for each benchmark.

    part: (index, count) where it is one of several workers that share the examples; which ones are its own is decided
    by the benchmarks, so that every score is the same as uncut. verified: of the likelihoods among `examples` whose
    right answers are verified ones these answers; what the likelihood is called holds their digest.
    """

    recipe: Node
    split: Split
    examples: Examples | None = None
    part: tuple[int, int] | None = None
    verified: Verified | None = None


@dataclass(frozen=True)
class Evaluation:
    """Scores example by example for each benchmark, empty where `error` says why there are none.

    seconds: by part. tokens: how many went through the model, padding included. broken: what the answers on all
    benchmarks have that only a broken model's have. given_up: the error is the machine's and not the recipe's, which
    was tried again in vain while others were scored. ends: by benchmark how many answers were written, how many of them
    reached the limit of tokens, and their tokens. Of a part, by benchmark: positions, where in the job's examples
    the scores belong; common, what all its answers are.
    """

    scores: Mapping[str, list[float]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    tokens: int = 0
    broken: str | None = None
    given_up: bool = False
    positions: Mapping[str, list[int]] | None = None
    common: Mapping[str, CommonAnswer | None] | None = None
    ends: Mapping[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """Answers of a model and their scores, example by example; none where `error` says why."""

    answers: Sequence[str]
    scores: Sequence[float]
    error: str | None = None


def broken_by(common: Mapping[str, CommonAnswer | None]) -> str | None:
    """What the answers have that only a broken model's have: on each benchmark they are several times one text."""
    if not common or any(each is None or each.count < 2 for each in common.values()):
        return None
    return "; ".join(f"all answers are {'the same' if each and each.text else 'empty'}" for each in common.values())


def checked(evaluation: Evaluation) -> Evaluation:
    """The same evaluation; one with an error where a score is NaN or infinite, for then the model has failed."""
    bad = {name: sum(not math.isfinite(value) for value in values) for name, values in evaluation.scores.items()}
    name = next((name for name, count in bad.items() if count), None)
    if evaluation.error is not None or name is None:
        return evaluation
    error = f"{bad[name]} of {len(evaluation.scores[name])} scores of benchmark {name!r} are not numbers"
    return replace(evaluation, scores={}, error=f"FloatingPointError: {error}", broken=None)


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """The evaluation of a job from those of all its parts; the first error counts."""
    failed = next((part for part in parts if part.error is not None), None)
    seconds = {name: round(sum(part.seconds[name] for part in parts), 4) for name in parts[0].seconds}
    tokens = sum(part.tokens for part in parts)
    if failed is not None:
        return Evaluation({}, seconds, failed.error, tokens, given_up=failed.given_up)
    scores: dict[str, dict[int, float]] = {}
    common: dict[str, CommonAnswer | None] = {}
    for part in parts:
        for name, values in part.scores.items():
            assert part.positions is not None
            scores.setdefault(name, {}).update(zip(part.positions[name], values, strict=True))
        for name, answer in (part.common or {}).items():
            common[name] = _of_both(common[name], answer) if name in common else answer
    ends: dict[str, list[int]] = {}
    for part in parts:
        for name, counts in part.ends.items():
            ends[name] = [one + other for one, other in zip(ends.get(name, [0, 0, 0]), counts, strict=True)]
    whole = {name: [values[at] for at in range(len(values))] for name, values in scores.items()}
    broken = broken_by({name: common[name] for name in whole if name in common})
    return Evaluation(whole, seconds, None, tokens, broken, ends=ends)


def _of_both(one: CommonAnswer | None, other: CommonAnswer | None) -> CommonAnswer | None:
    if one is None or other is None or one.text != other.text:
        return None
    return CommonAnswer(one.text, one.count + other.count)


class MachineError(RuntimeError):
    """A worker that could not score for a reason that says nothing about the recipe: memory, a device, a kill."""


class DeviceError(MachineError):
    """A device that has failed for good in this process: whatever the process scores next would fail too."""
