"""Asks the winner and the best source again: as before, with twice the limit, in other words, and as it is on disk."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from evohydra.audit import gains
from evohydra.audit.plan import AuditPlan
from evohydra.audit.texts import errors
from evohydra.files import Plain
from evohydra.recipe import Node
from evohydra.scoring.benchmarks import Audited, Benchmark, Change, Described, GivenAnswer, Split

WINNER = "winner"
SETTLED = ("length", "wording")
Told = tuple[list[GivenAnswer], str | None]


class Ask(Protocol):
    """Asks a model the examples of a test split, see `evohydra.scoring.asking.asked`."""

    def __call__(self, recipe: Node, benchmark: str, split: Split, examples: Sequence[int], change: Change) -> Told:
        """Its answers, or why there are none."""
        ...


@dataclass
class Asking:
    """Answers of the winner and of the best source on the first test examples; each is asked for once."""

    plan: AuditPlan
    benchmarks: Mapping[str, Benchmark]
    models: Mapping[str, Node]  # winner, and best source by its name
    ask: Ask
    weights: Mapping[str, float] | None = None  # of benchmarks in the fitness; None: all the same
    _known: dict[tuple[str, str, Change], Told] = field(default_factory=dict)

    def told(self, model: str, name: str, change: Change = "none") -> Told:
        """What a model writes to a benchmark's examples, or why there is nothing."""
        key = model, name, change
        if key not in self._known:
            places = range(min(self.plan.examples, self.benchmarks[name].size("test")))
            self._known[key] = self.ask(self.models[model], name, "test", list(places), change)
        return self._known[key]

    def written(self) -> list[str]:
        """The benchmarks whose models write answers."""
        return [name for name, each in self.benchmarks.items() if isinstance(each, Audited) and not each.lacks("none")]

    def changed(self, change: Change, source: str) -> Plain:
        """The gain over the best source where examples are asked with a change, with what was not asked and why."""
        scores: dict[str, dict[str, list[float]]] = {WINNER: {}, source: {}}
        lacking: dict[str, str] = {}
        same = []
        for name, benchmark in self.benchmarks.items():
            if self.weights is not None and not self.weights[name]:
                continue
            reason = "its answers are no texts" if not isinstance(benchmark, Audited) else benchmark.lacks(change)
            if reason is None and change == "length" and not self._any_cut(name, source):
                same.append(name)
            told = [] if reason else [self.told(m, name, "none" if name in same else change) for m in (WINNER, source)]
            reason = reason or next((error for _, error in told if error), None)
            if reason:
                lacking[name] = reason
                continue
            for model, (given, _) in zip((WINNER, source), told, strict=True):
                scores[model][name] = [each.score for each in given]
        unchanged = bool(same) and len(same) == len(scores[WINNER])
        found: dict[str, object] = {"not_checked": lacking, "unchanged": unchanged}
        if scores[WINNER]:
            found |= gains.gain(self._weighted(scores[WINNER]), self._weighted(scores[source]))
        return found

    def _weighted(self, scores: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
        """Scores of some benchmarks whose mean of means is their part of the fitness."""
        if self.weights is None:
            return {name: list(values) for name, values in scores.items()}
        counting = {name: each for name, each in scores.items() if self.weights[name]}
        return {name: [self.weights[name] * len(counting) * value for value in each] for name, each in counting.items()}

    def _any_cut(self, name: str, source: str) -> bool:
        return any(each.cut is not False for model in (WINNER, source) for each in self.told(model, name)[0])

    def errors(self, source: str) -> Plain:
        """For each benchmark and model how many wrong answers there are of each kind."""
        found: dict[str, dict[str, object]] = {}
        for name in self.written():
            benchmark = self.benchmarks[name]
            if not isinstance(benchmark, Described):
                continue
            for model in (WINNER, source):
                given, error = self.told(model, name)
                if error is None:
                    asked = [benchmark.describe("test", place) for place in range(len(given))]
                    kinds = {"wrong": sum(each.score < 1 for each in given), **errors(given, asked)}
                    found.setdefault(name, {})[model] = {"of": len(given), **kinds}
        return found

    def reloaded(self, ask: Callable[[str, Sequence[int]], Told]) -> Plain:
        """Whether the checkpoint that is read anew scores as the winner of the search does; `ask` asks it."""
        found: dict[str, object] = {}
        for name in self.written():
            before, error = self.told(WINNER, name)
            now, failed = ([], None) if error else ask(name, range(len(before)))
            if reason := error or failed:
                found[name] = {"not_checked": reason}
                continue
            other = sum(one.text != two.text for one, two in zip(before, now, strict=True))
            found[name] = {
                "score": sum(each.score for each in now) / len(now),
                "before": sum(each.score for each in before) / len(before),
                "other_answers": other,
                "of": len(now),
            }
        return found
