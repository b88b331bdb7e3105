"""The search loop: ask, evaluate what the ledger does not hold, tell; then choose the winner on validation."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import numpy as np

from evohydra.recipe import Node
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.job import Job
from evohydra.searching.asking import asked
from evohydra.searching.feasible import nearest
from evohydra.searching.feedback import tell
from evohydra.searching.fitness import Fitness, Staged
from evohydra.searching.fitness.generation import Generation, members_of
from evohydra.searching.fronts import Rule, best_fitness, on_front, picked
from evohydra.searching.guard import Guard, Kept
from evohydra.searching.ledger import Ledger, Record
from evohydra.searching.objectives import Objective
from evohydra.searching.optimizers import Points, StateIsData
from evohydra.searching.replay import check_replayed
from evohydra.searching.rounds import Rounds, Scoring
from evohydra.searching.scheduler import Scheduler
from evohydra.searching.scores import ScoreStore
from evohydra.searching.search_parts import SearchParts
from evohydra.searching.shortest import Shortest, against_sources, one_of_each, warn_unless_kept
from evohydra.spaces import Space
from evohydra.spaces.parameter import UNIFORM

Group = Callable[[Record], int]


ROUNDS = 4  # of candidates at most, until one keeps all limits


class SearchError(RuntimeError):
    """A search that cannot go on."""


@dataclass(frozen=True)
class Candidate:
    """One of the best genomes of a search, with its score on the validation split (None where that failed).

    objectives: on that split, where there are several. error: why it failed there. limits: how it keeps them there.
    """

    record: Record
    recipe: Node
    validation: float | None
    objectives: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    limits: Sequence[Kept] | None = None

    @property
    def shortfall(self) -> float:
        """By how much all limits together are not kept for sure; 0 where all are."""
        return sum(max(0.0, -kept.low) for kept in self.limits or ())


def check_any_scored(store: ScoreStore, split: Split, errors: Mapping[str, str | None]) -> None:
    """SearchError where none of several models, by their labels, could be scored on a split.

    That is hardly the fault of all of them: their failures are taken off the file, and the same command tries again.
    """
    first = next(iter(errors.values()))
    if first is not None and all(errors.values()):
        store.forget_failures(split, errors.keys())
        raise SearchError(
            f"none of {len(errors)} models could be scored on the {split} split; the first one: {first}. These "
            "failures are not kept: when the reason is mended, give the same command again"
        )


def search(parts: SearchParts, *, ask: bool = False) -> Sequence[Record]:
    """Evaluate `parts.budget` genomes and return their records in order.

    ask: ask for generations on file again, also where the state of the optimizer is what it was told.
    Raises SearchError where a whole generation fails, see `_check_generation`.
    """
    space, optimizer, fitness = parts.space, parts.optimizer, parts.fitness
    scoring, ledger, budget = parts.scoring, parts.ledger, parts.budget
    number = 0
    with ExitStack() as opened:
        while len(ledger.records) < budget:
            if parts.renewed and isinstance(fitness, Staged) and fitness.starts_anew(ledger.so_far, scoring.objective):
                optimizer = opened.enter_context(closing(parts.renewed()))
            first = len(ledger.records)
            told = ledger.generation(number) if isinstance(optimizer, StateIsData) and not ask else None
            genomes = asked(optimizer, number, space, fitness, scoring, ledger, budget) if told is None else told
            if not len(genomes):
                break
            batch = genomes[: budget - first]
            # A generation of which a line is missing is judged as a whole: kinds of fitness compare its members.
            known = ledger.on_file(genomes if len(batch) == len(genomes) else batch)
            generation = _generation(number, batch if known is None else genomes[: len(known)], space, scoring, ledger)
            if known is None:
                judgements = Rounds(generation, scoring, ledger).judged(fitness(generation))
                found: Iterable[Record] = scoring.limited(
                    generation, (generation.record(judged) for judged in judgements)
                )
            else:
                check_replayed(generation, known, fitness, scoring, ledger, cut=len(batch) < len(genomes))
                found = known
            for record in found:
                ledger.add(record)
                for observe in parts.observers:
                    observe(ledger.records[-1])
            records = ledger.records[first:]
            if known is None or number == 0:
                _check_generation(number, records, space, scoring, ledger)
            if len(batch) == len(genomes):
                tell(optimizer, genomes, records, ledger.records)
            number += 1
    return ledger.records


def _check_generation(number: int, records: Sequence[Record], space: Space, scoring: Scoring, ledger: Ledger) -> None:
    """Raise SearchError where all genomes of a generation failed, see `check_not_all_failed`."""
    if (number > 0 and len(records) == 1) or any(record.fitness is not None for record in records):
        return
    which = "the first generation" if number == 0 else f"generation {number}"
    labels = {f"genome {record.index}" for record in records}
    check_not_all_failed(which, records, labels, space, scoring, ledger)


def check_not_all_failed(
    which: str, records: Sequence[Record], labels: set[str], space: Space, scoring: Scoring, ledger: Ledger
) -> None:
    """Raise SearchError for genomes that all failed, the last ones of a search, which is hardly their fault.

    A genome that had scores is scored once more. Where that works the failures are the genomes' own: they are kept, and
    the same command goes on behind them. Where it does not, and where no genome had scores yet, they are taken off the
    files (of the scores those with these `labels`), and the same command scores these genomes anew.
    """
    what = f"every genome of {which} failed; the first one: {records[0].error}"
    healthy = next((each for each in reversed(ledger.records) if each.fitness is not None), None)
    error: str | None = "none was scored before"
    if healthy is not None:
        recipe = space.decode(np.array(healthy.genome))
        error = scoring.scheduler.again(scoring.job(recipe, healthy.examples)).error
        if error is None and scoring.guard is not None:
            error = scoring.scheduler.again(scoring.guard.job(recipe, "search")).error
    if healthy is not None and error is None:
        raise SearchError(
            f"{what}. Genome {healthy.index}, which had scores, was scored again, so that these failures are the "
            "genomes' own. They are kept: give the same command again to go on, or change the search (optimizer, genes)"
        )
    ledger.drop(records[0].index)
    scoring.scheduler.store.forget_failures("search", labels)
    doubt = f". Genome {healthy.index}, which had scores, fails now too: {error}" if healthy is not None else ""
    raise SearchError(
        f"{what}{doubt}. These failures are not kept: when the reason is mended, give the same command again"
    )


def _generation(number: int, genomes: Points, space: Space, scoring: Scoring, ledger: Ledger) -> Generation:
    recipes = [space.decode(x) for x in genomes]
    members = members_of(len(ledger.records), genomes, [space.values(x) for x in genomes], recipes)
    return Generation(number, members, scoring.sizes, scoring.objective, ledger.so_far)


def choose(
    space: Space,
    ledger: Ledger,
    scheduler: Scheduler | None,
    top: int,
    objective: Objective,
    rule: Rule = best_fitness,
    group: Group | None = None,
    guard: Guard | None = None,
) -> list[Candidate]:
    """The `top` different recipes of the search (or of each `group` of it) re-scored on validation, the winner first.

    Of several objectives the candidates are those of the front that `rule` prefers, and so is the winner among them by
    the scores on validation. An estimated fitness counts less its error bar: among many rough estimates the best are
    too high. Without `scheduler` there is no validation, and the best of the search is the winner.

    With a `guard` candidates are genomes that keep all limits in the search, as far as there are any, and the winner is
    one that keeps them on validation for sure. While there is none, the next `top` (of each group) are looked at, up to
    ROUNDS times; then it is the one that lacks least.
    """
    left: Sequence[Record] = ledger.records if guard is None else nearest(ledger.records, top)
    on_validation = rule
    if isinstance(rule, Shortest):
        sources = {name: node for name, node in space.known_merges().items() if name != UNIFORM}
        rule, on_validation = against_sources(rule, sources, ledger.records, scheduler, objective)
        left, top = one_of_each(left), max(top, len(left))  # the whole front, not longer than the longest path
    candidates: list[Candidate] = []
    for _ in range(1 if guard is None or scheduler is None else ROUNDS):
        best = _best(left, top, rule, group)
        candidates += _validated(space, best, scheduler, objective, on_validation, guard)
        if guard is None or not best:
            break
        candidates.sort(key=lambda each: (each.validation is None, each.shortfall))
        if candidates[0].validation is not None and not candidates[0].shortfall:
            break
        looked_at = {record.recipe for record in best}
        left = [record for record in left if record.recipe not in looked_at]
    warn_unless_kept(on_validation, candidates[0].validation if candidates else None)
    return candidates


def _validated(
    space: Space,
    best: Sequence[Record],
    scheduler: Scheduler | None,
    objective: Objective,
    rule: Rule,
    guard: Guard | None,
) -> list[Candidate]:
    """Genomes as candidates, the best on validation first."""
    candidates: list[Candidate] = []
    values: list[list[float]] = []
    recipes = [space.decode(np.array(record.genome)) for record in best]
    if scheduler is None:
        return [Candidate(record, recipe, None) for record, recipe in zip(best[:1], recipes[:1], strict=True)]
    jobs = [(f"genome {r.index}", Job(recipe, "validation")) for r, recipe in zip(best, recipes, strict=True)]
    labelled = [(label, job.recipe) for label, job in jobs]
    limited = guard.submit(scheduler, labelled, "validation") if guard else [None] * len(jobs)
    for record, recipe, pending, limit in zip(best, recipes, scheduler.submit(jobs), limited, strict=True):
        evaluation = scheduler.result(pending)
        scores = evaluation.scores
        if not scores:
            candidates.append(Candidate(record, recipe, None, error=evaluation.error))
            continue
        kept = guard.judged(scheduler, limit, "validation") if guard and limit else None
        if guard and kept is None:
            candidates.append(Candidate(record, recipe, None, error="its limits could not be scored"))
            continue
        several = objective.several(scores, recipe)
        candidates.append(Candidate(record, recipe, objective.fitness(scores), several, limits=kept))
        values.append(list(candidates[-1].objectives.values()) or [objective.fitness(scores)])
    scored = [candidate for candidate in candidates if candidate.validation is not None]
    order = picked(np.array(values), np.array([c.validation for c in scored]), rule, len(scored))
    return [scored[at] for at in order] + [candidate for candidate in candidates if candidate.validation is None]


def groups_of(fitness: Fitness) -> Group | None:
    """The groups of genomes whose fitness means the same; None where it does in all of the search."""
    if isinstance(fitness, Staged):
        return fitness.group
    return None if fitness.comparable else lambda record: record.generation


def _best(records: Sequence[Record], top: int, rule: Rule, group: Group | None) -> list[Record]:
    """The `top` different recipes, those of a higher fitness before others where objectives are equal."""
    different: dict[str, Record] = {}
    for record in sorted((r for r in records if r.fitness is not None), key=lambda r: (-_surely(r), r.index)):
        different.setdefault(record.recipe, record)
    groups: dict[int, list[Record]] = {}
    for record in different.values():
        groups.setdefault(group(record) if group else 0, []).append(record)
    best = [record for group in groups.values() for record in _picked(group, rule, top)]
    return _picked(best, rule, len(best)) if group else best


def _picked(records: Sequence[Record], rule: Rule, count: int) -> list[Record]:
    surely = [_surely(record) for record in records]
    values = np.array(
        [tuple(r.objectives.values()) or (value,) for r, value in zip(records, surely, strict=True)], dtype=np.float64
    )
    if values.ndim == 2 and values.shape[1] > 1:  # what is not on the front is no candidate
        count = min(count, int(on_front(values).sum()))
    return [records[at] for at in picked(values, np.array(surely), rule, count)]


def _surely(record: Record) -> float:
    assert record.fitness is not None
    return record.fitness - (record.error_bar or 0.0)
