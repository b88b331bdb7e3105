"""A whole run: search, choose on validation, score on test, write the winner and the report."""

import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from evohydra.audit.course import ANSWERS, Audit
from evohydra.audit.plan import AuditPlan
from evohydra.files import finish, read_json, tidy, together, write_json
from evohydra.recipe import Checkpoint, Node, digest
from evohydra.report import say
from evohydra.report.answers import answers_pages
from evohydra.report.ending import show_end, show_job
from evohydra.report.examples import WINNER, keep_examples
from evohydra.report.gathering import SETTINGS, keep_settings
from evohydra.report.pictures import draw_albums, pictures
from evohydra.report.progress import SearchProgress, Workers
from evohydra.report.tables import references_sentence
from evohydra.scoring.benchmarks import SPLITS, Benchmark
from evohydra.scoring.benchmarks.fingerprints import data_fingerprints, titles
from evohydra.scoring.executors import Executor
from evohydra.scoring.job import Evaluation, Scores, Verified
from evohydra.scoring.worker import answers, written
from evohydra.searching.ablations import ablations
from evohydra.searching.doubts import Doubts
from evohydra.searching.driver import Candidate, SearchError, check_any_scored, choose, groups_of
from evohydra.searching.ends import at_the_ends
from evohydra.searching.fitness import Fitness, WantsReferences
from evohydra.searching.guard import Guard
from evohydra.searching.identity import SCORES, Identity
from evohydra.searching.keeping import parents
from evohydra.searching.ledger import Ledger
from evohydra.searching.limits_told import told_of_limits
from evohydra.searching.masks import with_masks
from evohydra.searching.models import Models
from evohydra.searching.optimizers import Optimizer, TakesEarlier
from evohydra.searching.plan import SearchPlan
from evohydra.searching.references import REFERENCES, Told, check_same_references, told_of, verified_references
from evohydra.searching.rounds import Scoring
from evohydra.searching.scheduler import Scheduler
from evohydra.searching.scores import ScoreStore, conditions
from evohydra.searching.summary import Summary, summarise
from evohydra.searching.worker_times import WORKERS, WorkerTimes
from evohydra.spaces.nested import tree
from evohydra.trackers import Guarded, Tracker
from evohydra.winner.publishing import push
from evohydra.winner.writer import REASON, RESULT, UNVERIFIED, WinnerError, WinnerForm, write_winner

logger = logging.getLogger(__name__)
OWN = ("run.json", SETTINGS, SCORES, "ablations.json", "examples.json", ANSWERS)  # written while the run's lock is held


@dataclass(frozen=True)
class Searched:
    """What a search has left: the strategy, the kind of fitness that it went by, genomes, and what scores more."""

    optimizer: Optimizer
    fitness: Fitness
    ledger: Ledger
    scheduler: Scheduler
    tracker: Guarded
    references: Told | None


@dataclass(frozen=True)
class Run:
    """The parts of a run, built from a configuration.

    shared_scores: a file that the jobs of a sweep share. identity: what results depend on;
    allow_other_versions: of libraries, than those with which the run began. said: sentences about what was chosen where
    the configuration says auto. benchmark_options: the keys of the benchmarks in the configuration that are in use.
    audit: what of the winner is audited. guard: the limits that it has to keep. push: the repository of the hub for
    the winner. swept: what it is called as a job of a sweep; None: it is none.
    """

    directory: Path
    models: Models
    plan: SearchPlan
    benchmarks: Mapping[str, Benchmark]
    make_executor: Callable[[], Executor]
    make_tracker: Callable[[], Tracker]
    form: WinnerForm
    identity: Identity
    allow_other_versions: bool
    report: bool
    audit: AuditPlan
    shared_scores: Path | None
    guard: Guard | None = None
    push: str | None = None
    swept: str | None = None
    said: tuple[str, ...] = ()
    benchmark_options: tuple[str, ...] = ()

    @contextmanager
    def searched(self, console: Console) -> Iterator["Searched"]:
        """Carry out the search, or go on with it; what it has left is open meanwhile."""
        plan = self.plan
        with ExitStack() as stack:
            start = plan.starting_points()
            optimizer = stack.enter_context(closing(plan.optimizer(start)))
            if len(start) > optimizer.population:
                logger.warning("of %d starting points, generation 0 holds %d", len(start), optimizer.population)
            ledger = stack.enter_context(closing(self.ledger()))
            finish(self.directory)
            tidy(self.directory, OWN)
            axes = dict(zip(plan.space.names, plan.space.axes, strict=True))
            keep_settings(self.directory, self.benchmark_options, axes)
            for sentence in self.said:
                say(console, sentence, wrapped=True)
            store = ScoreStore(self.directory / SCORES, conditions(self.identity), self.shared_scores)
            stack.enter_context(closing(store))
            executor = stack.enter_context(closing(self.make_executor()))
            tracker = Guarded(self.make_tracker, ledger.replayed)
            stack.push(lambda kind, *_: tracker.close(failed=kind is not None))
            times = stack.enter_context(closing(WorkerTimes(self.directory / WORKERS)))
            scheduler = Scheduler(executor, store, times)
            fitness, verified, references = self.with_references(executor, ledger, console)
            with SearchProgress(console, plan.budget, ledger.replayed, Workers(scheduler, times)) as progress:
                observers = (progress, tracker.genome, Doubts(store))
                plan.search(optimizer, fitness, self.scoring(scheduler, verified), ledger, observers, start)
            yield Searched(optimizer, fitness, ledger, scheduler, tracker, references)

    def __call__(self, console: Console) -> Summary:
        """Carry it out, or go on with it; returns what summary.json holds.

        Raises WinnerError, with all written, where the winner's checkpoint is not the live model, or where the winner
        fails on test. No other candidate takes its place then: test examples choose nothing.
        """
        began = time.perf_counter()
        plan = self.plan
        with self.searched(console) as done:
            ledger, scheduler, tracker = done.ledger, done.scheduler, done.tracker
            store, executor, optimizer = scheduler.store, scheduler.executor, done.optimizer
            searching = scheduler.busy
            validate = scheduler if plan.validated else None
            groups = groups_of(done.fitness)
            chosen_by = plan.objective, plan.pick, groups, self.guard
            candidates = choose(plan.space, ledger, validate, plan.top, *chosen_by)
            self._check_candidates(store, candidates)
            compared = with_masks({**self.models.all(), WINNER: candidates[0].recipe}, self.models.masks)
            tested = scheduler.scored(compared, "test")
            check_any_scored(store, "test", {name: evaluation.error for name, evaluation in tested.items()})
            summary = self._summarise(scheduler, ledger, candidates, tested, done.references)
            summary["budget"] = plan.budget
            if not all(isinstance(source, Checkpoint) for source in self.models.sources.values()):
                genome = np.array(candidates[0].record.genome)
                summary["parents"] = parents(tree(plan.space, genome), self.models.sources)
            if self.guard is not None:
                summary["guard"] = told_of_limits(self.guard, scheduler, candidates, ledger.records)
            if isinstance(optimizer, TakesEarlier) and optimizer.transferred is not None:
                summary["search"]["transferred"] = round(optimizer.transferred, 3)
            summary["seconds"]["other"] = round(time.perf_counter() - began - searching, 3)
            self._keep_for_readers(scheduler, candidates[0], tested)
            audit = Audit(self.audit, self.benchmarks, self.models.all(), list(self.models.sources), executor.ask)
            scored = (line for split in SPLITS for line in store.entries(split))
            audit.before(self.directory, candidates[0].recipe, tested, plan.objective, summary, scored)
            self._write(executor, tracker, summary, candidates[0], audit, tested)
        if self.swept is None:
            show_end(console, self.directory, titles(self.benchmarks), summary)
        else:
            show_job(console, self.directory, self.swept, summary)
        if REASON in summary:
            raise WinnerError(f"{summary['winner_unverified']}; it is kept as {self.directory / UNVERIFIED}")
        if failure := summary["test"]["winner"].get("error"):
            raise WinnerError(f"the winner failed on the test split ({failure}); all is written to {self.directory}")
        if self.push is not None:
            say(console, f"  {push(self.directory / WINNER, self.push)}: the merged model on the hub")
        return summary

    def _check_candidates(self, store: ScoreStore, candidates: list[Candidate]) -> None:
        if not candidates:
            raise SearchError("no genome has a score")
        if self.plan.validated and candidates[0].validation is None:
            errors = {f"genome {each.record.index}": each.error for each in candidates}
            check_any_scored(store, "validation", errors)

    def ledger(self) -> Ledger:
        """The genomes on file; LedgerError where they are another run's."""
        return Ledger(self.directory, self.identity.to_dict(), allow_other_versions=self.allow_other_versions)

    def scoring(self, scheduler: Scheduler, verified: Verified) -> Scoring:
        """What scores genomes."""

        def sources() -> list[Scores]:
            return [each.scores for each in scheduler.scored(self.models.sources, "search").values() if each.scores]

        return Scoring(scheduler, self.plan.sizes, self.plan.objective, sources, verified, self.guard)

    def with_references(
        self, executor: Executor, ledger: Ledger, console: Console
    ) -> tuple[Fitness, Verified, Told | None]:
        """The kind of fitness with the references that it wants, if any; made before the search, and frozen then."""
        plan, fitness = self.plan, self.plan.fitness
        if not isinstance(fitness, WantsReferences) or fitness.questions is None:
            return fitness, {}, None
        models: dict[str, Node] = {**self.models.sources}
        models |= {"uniform": self.models.uniform} if self.models.uniform else {}
        models |= {f"warm start {number}": plan.space.decode(x) for number, x in enumerate(plan.warm, start=1)}
        found = verified_references(
            self.directory / REFERENCES,
            models,
            fitness.questions,
            lambda node, name, places: executor.ask(written, node, name, "search", places),
        )
        searched_by, verified = fitness.with_references(found)
        check_same_references(ledger, tuple(verified))
        told = told_of(found, verified)
        say(console, references_sentence(told), wrapped=True)
        return searched_by, verified, told

    def _summarise(
        self,
        scheduler: Scheduler,
        ledger: Ledger,
        candidates: list[Candidate],
        tested: Mapping[str, Evaluation],
        references: Told | None,
    ) -> Summary:
        winner = candidates[0]
        validated = Evaluation({}, error="no validation split: the winner is the best of the search")
        if winner.validation is not None:
            validated = scheduler.scored({WINNER: winner.recipe}, "validation")[WINNER]
        return summarise(
            self.plan.objective,
            ledger.records,
            candidates,
            validated,
            tested,
            list(self.models.sources),
            {name: list(self.models.masks.get(name, ())) for name in self.models.baselines},
            scheduler.store.examples_of(self.models.sources, "search"),
            data_fingerprints(self.benchmarks),
            comparable=self.plan.fitness.comparable,
            ends=at_the_ends(self.plan.space, winner.record.genome),
            known_as=self.plan.known_as(winner.record.genome),
            references=references,
        )

    def _keep_for_readers(self, scheduler: Scheduler, winner: Candidate, tested: Mapping[str, Evaluation]) -> None:
        """Single examples, and ablations where they are asked for: what needs models and is not in summary.json."""
        if self.plan.ablate:
            found = ablations(self.plan.space, winner, scheduler, self.plan.objective, self.plan.ablate)
            write_json(self.directory / "ablations.json", {"recipe": digest(winner.recipe), "ablations": found})
        models: dict[str, Node] = {**self.models.sources, WINNER: winner.recipe}
        scored = {name: (node, tested[name]) for name, node in models.items()}
        answers_of = functools.partial(scheduler.executor.ask, answers)
        keep_examples(self.directory / "examples.json", self.benchmarks, scored, answers_of)

    def _write(
        self,
        executor: Executor,
        tracker: Guarded,
        summary: Summary,
        winner: Candidate,
        audit: Audit,
        tested: Mapping[str, Evaluation],
    ) -> None:
        with together(self.directory, RESULT) as room:
            models: dict[str, Node] = {**self.models.sources, WINNER: winner.recipe}
            pages = answers_pages(self.benchmarks, models, tested, functools.partial(executor.ask, answers), room)
            shown, unverified = self._result(executor, summary, winner, room, audit, pages)
        target = self.directory / (UNVERIFIED if unverified else WINNER)
        tracker.finish(summary, {**shown, **self._reported()}, target)

    def _result(
        self, executor: Executor, summary: Summary, winner: Candidate, room: Path, audit: Audit, pages: dict[str, Path]
    ) -> tuple[dict[str, Path], str | None]:
        """All files that tell of this winner, in `room`: what is to be shown of them, and why it is not verified."""
        models: dict[str, Node] = dict(self.models.sources)
        models |= {"uniform": self.models.uniform} if self.models.uniform else {}
        models[WINNER] = winner.recipe
        drawn, samples = draw_albums(self.benchmarks, models, functools.partial(executor.ask, pictures), room)
        found = {"seed": self.plan.seed, "budget": self.plan.budget, "genome": winner.record.index}
        unverified = executor.ask(write_winner, self.form, self.directory, room, winner.recipe, found, summary, samples)
        if unverified:
            summary["winner_unverified"] = unverified
        if left_out := read_json(room / "recipe.json").get("left_out"):
            summary["left_out"] = left_out
        audit.after(room / (UNVERIFIED if unverified else WINNER), summary)
        write_json(room / "summary.json", summary)
        return {name: self.directory / file.name for name, file in {**pages, **drawn}.items()}, unverified

    def _reported(self) -> dict[str, Path]:
        """The report's page and figures. The run does not fail for the want of one: all that it shows is on disk."""
        try:
            if not self.report:
                return {}
            from evohydra.report.writing import write_report  # takes seconds to import

            return write_report([self.directory], self.directory)
        except Exception as error:
            logger.warning(
                "the report could not be written (%s: %s); python -m evohydra.report %s tries again",
                type(error).__name__,
                error,
                self.directory,
            )
            return {}
