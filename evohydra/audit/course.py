"""When the audit does what: before the winner is written, for its card, and after, with what was written."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from evohydra.audit.answers import keep_answers
from evohydra.audit.asking import WINNER, Asking, Told
from evohydra.audit.findings import audited
from evohydra.audit.plan import AuditPlan
from evohydra.audit.verdict import verdict
from evohydra.files import Plain
from evohydra.recipe import Node
from evohydra.scoring.asking import asked, reloaded
from evohydra.scoring.benchmarks import Benchmark, Change, Split
from evohydra.scoring.job import Evaluation
from evohydra.searching.objectives import Objective
from evohydra.searching.scores import LIMITS
from evohydra.searching.summary import Summary

ANSWERS = "answers.jsonl"
GENOME = "genome "  # how labels of genomes begin
Ask = Callable[..., object]  # has a worker do something, see `evohydra.scoring.executors.Executor.ask`


@dataclass
class Audit:
    """The audit of one run. models: all that the winner is compared with, by name. ask: has a worker do something."""

    plan: AuditPlan
    benchmarks: Mapping[str, Benchmark]
    models: Mapping[str, Node]
    sources: Sequence[str]
    ask: Ask
    _asking: Asking | None = None

    def before(
        self,
        directory: Path,
        winner: Node,
        tested: Mapping[str, Evaluation],
        objective: Objective,
        summary: Summary,
        scored: Iterable[Plain],
    ) -> None:
        """Keep answers, and add what the audit finds to the summary; nothing where the gain has no number."""
        models = {**self.models, WINNER: winner}
        keep_answers(directory / ANSWERS, self.benchmarks, models, self._answers, self.plan.answers)
        source = summary["gain"]["best_source"]
        if source is None or not self.plan.parts:
            return
        compared = {WINNER: winner, source: models[source]}
        self._asking = Asking(self.plan, self.benchmarks, compared, self._answers, objective.weights)
        scores = {name: objective.weighted(each.scores) for name in models if (each := tested[name]).scores}
        ours = (line for line in scored if counts(line, summary))
        counting = {name: {key: tested[name].scores[key] for key in each} for name, each in scores.items()}
        summary["audit"] = audited(self.plan, self._asking, scores, self.sources, source, ours, counting)
        self._conclude(summary)

    def after(self, directory: Path, summary: Summary) -> None:
        """Add to the summary whether the checkpoint in `directory`, read anew, answers as the search's model does."""
        if self._asking is None or "reload" not in self.plan.parts:
            return

        def again(name: str, places: Sequence[int]) -> Told:
            return cast("Told", self.ask(reloaded, directory, name, "test", list(places)))

        summary["audit"]["reload"] = self._asking.reloaded(again)
        self._conclude(summary)

    def _conclude(self, summary: Summary) -> None:
        summary["audit"]["verdict"] = verdict(summary["audit"], summary["gain"])

    def _answers(self, recipe: Node, benchmark: str, split: Split, examples: Sequence[int], change: Change) -> Told:
        return cast("Told", self.ask(asked, recipe, benchmark, split, examples, change))


def counts(line: Plain, summary: Summary) -> bool:
    """Whether a line of scores.jsonl is of this run's models: not an earlier end's winner, candidates or limits.

    A merge with random masks counts under the names of its masks, of which the first is the merge itself.
    """
    label, split = line["label"], line["split"]
    if label == WINNER:
        return bool(line["recipe"] == summary["recipe_digest"])
    if split == "validation" and label.startswith(GENOME):
        return label in {f"{GENOME}{each['index']}" for each in summary["validation"]["candidates"]}
    baseline = summary["test"]["baselines"].get(label) if split == "test" else None
    masked = baseline is not None and bool(baseline.get("masks"))
    return not masked and not label.startswith(LIMITS)
