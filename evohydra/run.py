"""A whole run: search, choose on validation, score on test, write the winner and the report."""

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from evohydra.ablations import ablations, check_ablations
from evohydra.artifacts import versions
from evohydra.benchmarks import Benchmark
from evohydra.benchmarks.fingerprints import data_fingerprints
from evohydra.evaluate import Evaluation, Evaluator
from evohydra.executors import Executor
from evohydra.families import LiveModel
from evohydra.files import write_json
from evohydra.fitness import Fitness
from evohydra.fitness.generation import Scoring
from evohydra.fronts import Rule
from evohydra.genome import Axis
from evohydra.ledger import Ledger, Record, Scores
from evohydra.merge import Engine
from evohydra.objectives import Objective
from evohydra.optimizers import LearnsFromExamples, Optimizer, Points
from evohydra.recipe import Node, digest
from evohydra.report.answers import Pictured, answers_page, shown
from evohydra.report.examples import WINNER, keep_examples
from evohydra.report.front import front
from evohydra.report.pictures import draw_albums
from evohydra.report.progress import SearchProgress
from evohydra.report.tables import gain_sentence, summary_table
from evohydra.report.writing import write_report
from evohydra.search import Candidate, SearchError, choose, search
from evohydra.sources import OpenSources
from evohydra.spaces import Space
from evohydra.statistics import interval, paired_gain
from evohydra.telling import EVERY_EXAMPLE
from evohydra.trackers import Guarded
from evohydra.winner import REASON, UNVERIFIED, WinnerError, WinnerWriter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """The parts of a run, built from a configuration."""

    directory: Path
    sources: OpenSources
    live: LiveModel
    engine: Engine
    space: Space
    uniform: Node | None
    baselines: Mapping[str, Node]
    benchmarks: Mapping[str, Benchmark]
    objective: Objective
    pick: Rule
    make_optimizer: Callable[[Sequence[Axis], Points], Optimizer]
    executor: Executor
    tracker: Guarded
    budget: int
    seed: int
    top: int
    fitness: Fitness
    report: bool
    ablate: str | None
    start: Sequence[str]
    warm: Points
    write: WinnerWriter
    identity: Mapping[str, Any]

    def __call__(self, console: Console) -> dict[str, Any]:
        """Carry it out, or go on with it; returns what summary.json holds.

        Raises WinnerError, with all written, where the winner's checkpoint is not the live model.
        """
        began = time.perf_counter()
        evaluate = Evaluator(self.engine, self.live, self.benchmarks, self.sources.models[0])
        with ExitStack() as stack:
            stack.push(lambda kind, *_: self.tracker.close(failed=kind is not None))
            validated = self._has_validation()
            check_ablations(self.ablate, validated)
            start = self._starting_points()
            optimizer = stack.enter_context(closing(self.make_optimizer(self.space.axes, start)))
            if isinstance(optimizer, LearnsFromExamples) and not self.fitness.same_examples:
                raise ValueError(EVERY_EXAMPLE)
            if len(start) > optimizer.population:
                logger.warning("of %d starting points, generation 0 holds %d", len(start), optimizer.population)
            ledger = stack.enter_context(closing(Ledger(self.directory, self.identity)))
            with SearchProgress(console, self.budget, ledger.replayed) as progress:
                observers = (progress, self.tracker.genome)
                sources = functools.partial(self._sources, ledger, evaluate)
                sizes = search_sizes(self.benchmarks)
                scoring = Scoring(self.executor, evaluate, sizes, self.objective, sources)
                records = search(self.space, optimizer, self.fitness, scoring, ledger, self.budget, observers)
            each = not self.fitness.comparable
            validate = evaluate if validated else None
            candidates = choose(
                self.space, ledger, validate, self.top, self.objective, self.pick, each_generation=each,
                expect=evaluate.expect,
            )  # fmt: skip
            if not candidates or (validated and candidates[0].validation is None):
                raise SearchError("none of the best genomes could be scored on the validation split; see finals.jsonl")
            summary = self._summarise(evaluate, ledger, candidates, records)
            summary["seconds"]["other"] = round(time.perf_counter() - began - _evaluated_now(ledger), 3)
            self._keep_for_readers(evaluate, ledger, candidates[0])
            self._write(summary, candidates[0])
        self._report(summary, console)
        if REASON in summary:
            raise WinnerError(f"{summary[REASON]}; it is kept as {self.directory / UNVERIFIED}")
        return summary

    def _sources(self, ledger: Ledger, evaluate: Evaluator) -> list[Scores]:
        """The scores of the source models on the whole search split."""
        evaluations = [ledger.final(model.name, model, "search", evaluate) for model in self.sources.models]
        return [evaluation.scores for evaluation in evaluations if evaluation.scores]

    def _has_validation(self) -> bool:
        sizes = {name: benchmark.size("validation") for name, benchmark in self.benchmarks.items()}
        if any(sizes.values()) and not all(sizes.values()):
            raise ValueError(
                f"validation examples for some benchmarks only: {sizes}; give all a validation split, or none"
            )
        return all(sizes.values())

    def _validation(self, winner: Candidate, ledger: Ledger, evaluate: Evaluator) -> Evaluation:
        if winner.validation is None:
            return Evaluation({}, error="no validation split: the winner is the best of the search")
        return ledger.final("winner", winner.recipe, "validation", evaluate)

    def _starting_points(self) -> Points:
        points = []
        for name, node in self.space.landmarks().items():
            if ("uniform" if name == "uniform" else "sources") in self.start:
                try:
                    points.append(self.space.encode(node))
                except ValueError as reason:
                    logger.warning("%s is not in the search space and not in generation 0: %s", name, reason)
        return np.vstack([np.array(points).reshape(len(points), len(self.space.names)), self.warm])

    def _summarise(
        self, evaluate: Evaluator, ledger: Ledger, candidates: Sequence[Candidate], records: Sequence[Record]
    ) -> dict[str, Any]:
        winner = candidates[0]
        models: dict[str, Node] = {model.name: model for model in self.sources.models}
        others: dict[str, Node] = dict(self.baselines)
        others |= {"uniform": self.uniform} if self.uniform else {}
        others |= {"base": self.sources.base} if self.sources.base else {}
        evaluate.expect([*models.values(), *others.values(), winner.recipe])
        test = {name: ledger.final(name, node, "test", evaluate) for name, node in {**models, **others}.items()}
        test_winner = ledger.final("winner", winner.recipe, "test", evaluate)
        return {
            "test": {
                "winner": self._scored(test_winner),
                "uniform": self._scored(test["uniform"]) if "uniform" in test else None,
                "sources": {name: self._scored(test[name]) for name in models},
                "base": self._scored(test["base"]) if "base" in test else None,
                "baselines": {name: self._scored(test[name]) for name in self.baselines},
            },
            "validation": {
                "winner": self._scored(self._validation(winner, ledger, evaluate)),
                "candidates": [
                    {"index": c.record.index, "search": c.record.fitness, "validation": c.validation}
                    for c in candidates
                ],
            },
            "search": {
                "winner": self._scored(Evaluation(winner.record.scores)),
                "index": winner.record.index,
                "best": max(r.fitness for r in records if r.fitness is not None),
                "failed": sum(r.fitness is None for r in records),
                **({"front": [{"index": r.index, **r.objectives} for r in best]} if (best := front(records)) else {}),
            },
            "gain": self._gain(test_winner, {name: test[name] for name in models}),
            "evaluations": len(records),
            "examples_scored": sum(record.scored for record in records) + ledger.scored_in_full("search"),
            "tokens": sum(r.tokens for r in records),
            "seconds": {
                part: round(sum(r.seconds[part] for r in records), 3) for part in ("merge", "evaluate", "forward")
            },
            "data": data_fingerprints(self.benchmarks),
            "versions": versions(),
            "recipe_digest": digest(winner.recipe),
        }

    def _scored(self, evaluation: Evaluation) -> dict[str, Any]:
        if not evaluation.scores:
            return {"score": None, "low": None, "high": None, "n": 0, "error": evaluation.error}
        each = {name: sum(values) / len(values) for name, values in evaluation.scores.items()}
        score = asdict(interval(self.objective.weighted(evaluation.scores)))
        return score | ({"benchmarks": each} if len(each) > 1 else {})

    def _gain(self, winner: Evaluation, sources: Mapping[str, Evaluation]) -> dict[str, Any]:
        scores = {name: self.objective.weighted(each.scores) for name, each in sources.items() if each.scores}
        if not winner.scores or not scores:
            return {"best_source": None, "difference": None, "low": None, "high": None, "p": None}
        best = max(scores, key=lambda name: interval(scores[name]).score)
        return {"best_source": best, **asdict(paired_gain(self.objective.weighted(winner.scores), scores[best]))}

    def _write(self, summary: dict[str, Any], winner: Candidate) -> None:
        pages = self._pages_of_answers(winner.recipe)
        models: dict[str, Node] = {model.name: model for model in self.sources.models}
        models |= {"uniform": self.uniform} if self.uniform else {}
        models["winner"] = winner.recipe
        drawn, samples = draw_albums(self.benchmarks, models, self._live_as, self.directory)
        found = {"seed": self.seed, "budget": self.budget, "genome": winner.record.index}
        target, unverified = self.write.into(self.directory, winner.recipe, found, summary, samples)
        summary |= {REASON: unverified} if unverified else {}
        write_json(self.directory / "summary.json", summary)
        self.tracker.finish(summary, {**pages, **drawn, **self._reported()}, target)

    def _reported(self) -> dict[str, Path]:
        """The report's page and figures. The run does not fail for the want of one: all that it shows is on disk."""
        try:
            return write_report([self.directory], self.directory) if self.report else {}
        except Exception as error:
            logger.warning(
                "the report could not be written (%s: %s); python -m evohydra.report %s tries again",
                type(error).__name__, error, self.directory,
            )  # fmt: skip
            return {}

    def _keep_for_readers(self, evaluate: Evaluator, ledger: Ledger, winner: Candidate) -> None:
        """Single examples, and ablations where they are asked for: what needs models and is not in summary.json."""
        if self.ablate:
            found = ablations(self.space, winner, ledger, evaluate, self.objective, self.ablate)
            write_json(self.directory / "ablations.json", {"recipe": digest(winner.recipe), "ablations": found})
        models: dict[str, Node] = {model.name: model for model in self.sources.models}
        models |= {WINNER: winner.recipe}
        scored = {name: (node, ledger.final(name, node, "test", evaluate)) for name, node in models.items()}
        keep_examples(self.directory / "examples.json", self.benchmarks, scored, self._live_as)

    def _live_as(self, node: Node) -> LiveModel:
        self.live.become(node, self.engine)
        return self.live

    def _pages_of_answers(self, winner: Node) -> dict[str, Path]:
        """For each benchmark with pictures a page with the winner's answers, and of the source whose files it has."""
        pages = {}
        for name, benchmark in self.benchmarks.items():
            if isinstance(benchmark, Pictured):
                answers = {}
                known = (*self.sources.models, *((self.sources.base,) if self.sources.base else ()))
                source = next(each for each in known if each.name == self.sources.files_from)
                for label, node in ((f"source {source.name}", source), ("winner", winner)):
                    self.live.become(node, self.engine)
                    answers[label] = benchmark.answers(self.live, "test", shown(benchmark))
                file = self.directory / f"answers-{name.replace('/', '-')}.html"
                pages[f"answers-{name}"] = answers_page(benchmark, answers, file)
        return pages

    def _report(self, summary: Mapping[str, Any], console: Console) -> None:
        console.print(summary_table(summary, ", ".join(self.benchmarks)))
        console.print(gain_sentence(summary["gain"]), highlight=False)
        seconds = summary["seconds"]
        of_genomes = seconds["merge"] + seconds["evaluate"]
        forward = seconds["forward"] / max(of_genomes, 1e-9)
        console.print(
            f"{summary['evaluations']} genomes: {seconds['merge']:.1f} s to merge, {seconds['evaluate']:.1f} s to "
            f"evaluate ({forward:.0%} of both in forward passes), {seconds['other']:.1f} s else",
            highlight=False,
        )
        for name, what in (("winner", "the merged model"), (UNVERIFIED, "the merged model, not verified"),
                           ("recipe.json", "how to make it again"), ("summary.json", "all scores"),
                           ("ledger.jsonl", "every genome"),
                           ("report.html", "all of it in figures, which are in figures/ too")):  # fmt: skip
            if (self.directory / name).exists():
                console.print(f"  {self.directory / name}: {what}", highlight=False, soft_wrap=True)
        for files, what in (("answers-*.html", "answers about held-out pictures"),
                            ("pictures-*.png", "pictures of held-out prompts")):  # fmt: skip
            for page in sorted(self.directory.glob(files)):
                console.print(f"  {page}: {what}", highlight=False, soft_wrap=True)


def search_sizes(benchmarks: Mapping[str, Benchmark]) -> dict[str, int]:
    """The number of search examples of each benchmark."""
    return {name: benchmark.size("search") for name, benchmark in benchmarks.items()}


def _evaluated_now(ledger: Ledger) -> float:
    """Seconds that this process spent on evaluations of the search; replayed ones cost it nothing."""
    fresh = ledger.records[ledger.replayed :]
    return sum(record.seconds["merge"] + record.seconds["evaluate"] for record in fresh)


def baseline_nodes(spaces: Mapping[str, Space], engine: Engine) -> dict[str, Node]:
    """The default recipe of each space that these sources allow; the others are left out with a warning."""
    nodes: dict[str, Node] = {}
    for name, space in spaces.items():
        try:
            engine.probe(space.default())
            nodes[name] = space.default()
        except ValueError as reason:
            logger.warning("baseline %s is left out: %s", name, reason)
    return nodes
