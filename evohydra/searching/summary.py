"""What a run has found, in numbers: the content of summary.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NotRequired, TypedDict

import numpy as np

from evohydra.checks.libraries import machine, versions
from evohydra.recipe import digest
from evohydra.scoring.benchmarks.likelihood import benchmark_of, measure_of
from evohydra.scoring.job import Evaluation
from evohydra.scoring.repeats import NORMAL_95, bounds_of, within
from evohydra.scoring.statistics import interval, paired_gain
from evohydra.searching.driver import Candidate
from evohydra.searching.ends import AtTheEnds
from evohydra.searching.feasible import that_count
from evohydra.searching.fitness.likelihood import agreement
from evohydra.searching.fronts import RULES, on_front, picked
from evohydra.searching.ledger import Record
from evohydra.searching.masks import label, mean_of
from evohydra.searching.objectives import Objective
from evohydra.searching.references import Told


class Score(TypedDict):
    """A mean over `n` examples with its 95 % interval, None where there is none and `error` says why."""

    score: float | None
    low: float | None
    high: float | None
    n: int
    measure: NotRequired[str]  # where it is another number than the benchmarks' metric
    error: NotRequired[str | None]
    benchmarks: NotRequired[dict[str, float]]  # where there are several
    masks: NotRequired[dict[str, float | None]]  # by mask seed, where this is the mean over several random masks


class Gain(TypedDict):
    """The winner above the best source on the same examples; None where one of them has no score."""

    best_source: str | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    failed: NotRequired[dict[str, str | None]]  # sources that are not among those compared, and why


class Tested(TypedDict):
    """Scores on the test split."""

    winner: Score
    uniform: Score | None
    sources: dict[str, Score]
    base: Score | None
    baselines: dict[str, Score]


class Validated(TypedDict):
    """Scores on the validation split, and what each candidate was chosen by; for the others see `Searched`."""

    winner: Score
    candidates: list[dict[str, object]]
    front: NotRequired[list[dict[str, object]]]
    picks: NotRequired[dict[str, int]]


class Searched(TypedDict):
    """What the search has found.

    best: the highest fitness. Where there are limits (`guard`) and some genomes keep all of them in the search, it is
    that of these genomes, and the front is theirs.
    front: where there are several objectives. It is that of all genomes (of those with one recipe the first), or where
    generations were scored on different examples that of the candidates on the validation split, which is told there.
    picks: by the names of the rules of conf/pick the genome of the front that each prefers. likelihood: the rank
    correlation of fitness and metric (`value`, `low`, `high`, `n` genomes), where a search by log-likelihoods has
    checked it. references: where they are verified ones. measure: of `best`, where it is another number than the
    benchmarks' metric. at_the_ends: see `evohydra.searching.ends`.
    transferred: by how much the model of an earlier run counts in that of this search, 0: not at all.
    known_as: the name of a source or of another merge without a search, where the winner is no other model.
    """

    winner: Score
    likelihood: NotRequired[dict[str, float]]
    references: NotRequired[Told]
    index: int
    best: float
    measure: NotRequired[str]
    at_the_ends: NotRequired[AtTheEnds]
    known_as: NotRequired[str]
    failed: int
    transferred: NotRequired[float]
    front: NotRequired[list[dict[str, object]]]
    picks: NotRequired[dict[str, int]]


class Summary(TypedDict):
    """A finished run; `budget` is the one that it was given, some strategies evaluate fewer genomes."""

    test: Tested
    validation: Validated
    search: Searched
    gain: Gain
    evaluations: int
    examples_scored: int
    tokens: int
    seconds: dict[str, float]
    data: Mapping[str, object]
    versions: Mapping[str, str]
    machine: NotRequired[str]
    recipe_digest: str
    budget: NotRequired[int]
    guard: NotRequired[dict[str, object]]  # see `evohydra.searching.limits_told`
    audit: NotRequired[dict[str, object]]  # see `evohydra.audit`
    winner_unverified: NotRequired[str]
    left_out: NotRequired[Mapping[str, object]]  # of a winner that is cut to an adapter of small rank
    parents: NotRequired[Mapping[str, float]]  # of a winner whose sources are recipes: how much comes from each


def summarise(
    objective: Objective,
    records: Sequence[Record],
    candidates: Sequence[Candidate],
    validated: Evaluation,
    tested: Mapping[str, Evaluation],
    sources: Sequence[str],
    baselines: Mapping[str, Sequence[int]],
    examples_of_sources: int,
    data: Mapping[str, object],
    *,
    comparable: bool = True,
    ends: AtTheEnds | None = None,
    known_as: str | None = None,
    references: Told | None = None,
) -> Summary:
    """The summary of a run but for the seconds that are not the search's.

    `comparable`: objectives mean the same in all generations. `validated` are the winner's scores on validation,
    `tested` those of all models on test by their names ("winner", "uniform", "base", `sources`, `baselines`, and these
    with each of their mask seeds, where they have some).
    `ends`: the ranges at whose ends the winner lies; `known_as`: the merge without a search that the winner is.
    `references`: the verified ones, whose generated answers count as examples that were scored.
    """
    winner = candidates[0]

    def on_test(name: str) -> Score | None:
        return scored(tested[name], objective) if name in tested else None

    searched = _searched(objective, records, winner, ends, known_as)
    if references is not None:
        searched["references"] = references
    chosen: Validated = {
        "winner": scored(validated, objective),
        "candidates": [
            {"index": c.record.index, "search": c.record.fitness, "validation": c.validation} for c in candidates
        ],
    }
    genomes = different(records) if comparable else []
    if best := front(genomes):
        searched["front"] = best
        searched["picks"] = picks(best, {r.index: r.fitness for r in records if r.fitness is not None})
    elif best := front([(c.record.index, c.objectives) for c in candidates]):
        chosen["front"] = best
        chosen["picks"] = picks(best, {c.record.index: c.validation for c in candidates if c.validation is not None})
    return {
        "test": {
            "winner": scored(tested["winner"], objective),
            "uniform": on_test("uniform"),
            "sources": {name: scored(tested[name], objective) for name in sources},
            "base": on_test("base"),
            "baselines": {name: _baseline(name, seeds, tested, objective) for name, seeds in baselines.items()},
        },
        "validation": chosen,
        "search": searched,
        "gain": gain(tested["winner"], {name: tested[name] for name in sources}, objective),
        "evaluations": len(records),
        "examples_scored": sum(record.scored for record in records)
        + examples_of_sources
        + (references["generated"] if references else 0),
        "tokens": sum(r.tokens for r in records),
        "seconds": {part: round(sum(r.seconds[part] for r in records), 3) for part in ("merge", "evaluate", "forward")},
        "data": data,
        "versions": versions(),
        "machine": machine(),
        "recipe_digest": digest(winner.recipe),
    }


def _baseline(name: str, seeds: Sequence[int], tested: Mapping[str, Evaluation], objective: Objective) -> Score:
    """The score of a merge without a search; with random masks the mean over those of `seeds`, each example's first."""
    if not seeds:
        return scored(tested[name], objective)
    each = {seed: tested[label(name, seed)] for seed in seeds}
    masks = {str(seed): scored(found, objective)["score"] for seed, found in each.items()}
    return {**scored(mean_of([*each.values()]), objective), "masks": masks}


def _searched(
    objective: Objective,
    records: Sequence[Record],
    winner: Candidate,
    ends: AtTheEnds | None,
    known_as: str | None,
) -> Searched:
    found: Searched = {
        "winner": scored_on_search(winner.record, objective),
        "index": winner.record.index,
        "best": max(r.fitness for r in that_count(records) if r.fitness is not None),
        "failed": sum(r.fitness is None for r in records),
    }
    if measure := next(filter(None, (measure_of(record.scores) for record in records)), None):
        found["measure"] = measure
    if known_as is not None:
        found["known_as"] = known_as
    if ends is not None:
        found["at_the_ends"] = ends
    if agreed := agreement(records, objective):
        found["likelihood"] = asdict(agreed)
    return found


def scored(evaluation: Evaluation, objective: Objective) -> Score:
    """The score of an evaluation by the objective."""
    if not evaluation.scores:
        return {"score": None, "low": None, "high": None, "n": 0, "error": evaluation.error}
    found = interval(objective.weighted(evaluation.scores))
    score: Score = {"score": found.score, "low": found.low, "high": found.high, "n": found.n}
    each = {name: sum(values) / len(values) for name, values in evaluation.scores.items()}
    return {**score, "benchmarks": each} if len(each) > 1 else score


def scored_on_search(record: Record, objective: Objective) -> Score:
    """The score of a genome on the search split: where its fitness is an estimate, that one, with its error bar.

    The mean of examples that were chosen for this genome says nothing of the mean over all. Where the search went by
    likelihoods, it is their mean.
    """
    likely = {benchmark_of(name): values for name, values in record.scores.items() if benchmark_of(name) != name}
    if likely:
        return {**scored(Evaluation(likely), objective), "measure": measure_of(record.scores) or ""}
    score = scored(Evaluation(record.scores), objective)
    if record.fitness is None or record.error_bar is None:
        return score
    known = bounds_of([record.scores], objective.weights)
    low, high = within(record.fitness, record.error_bar, NORMAL_95, known)
    return {"score": record.fitness, "low": low, "high": high, "n": score["n"]}


def gain(winner: Evaluation, sources: Mapping[str, Evaluation], objective: Objective) -> Gain:
    """What the winner gains over the source with the best score."""
    scores = {name: objective.weighted(each.scores) for name, each in sources.items() if each.scores}
    if not winner.scores or not scores:
        return {"best_source": None, "difference": None, "low": None, "high": None, "p": None}
    best = max(scores, key=lambda name: interval(scores[name]).score)
    found: dict[str, object] = asdict(paired_gain(objective.weighted(winner.scores), scores[best]))
    failed = {name: each.error for name, each in sources.items() if not each.scores}
    return {"best_source": best, **found, **({"failed": failed} if failed else {})}  # type: ignore[typeddict-item]


def different(records: Sequence[Record]) -> list[tuple[int, Mapping[str, float]]]:
    """(index, objectives) of the genomes that count, of those with one recipe the first."""
    found: dict[str, tuple[int, Mapping[str, float]]] = {}
    for record in that_count(records):
        found.setdefault(record.recipe, (record.index, record.objectives))
    return list(found.values())


def front(genomes: Sequence[tuple[int, Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Those that no other one is better than in all objectives, in the order of the first; none without objectives.

    genomes: (index, objectives).
    """
    found = [(index, objectives) for index, objectives in genomes if objectives]
    if not found:
        return []
    best = np.flatnonzero(on_front(np.array([list(objectives.values()) for _, objectives in found])))
    told = [{"index": found[at][0], **found[at][1]} for at in best]
    return sorted(told, key=lambda one: [-v if n.startswith("-") else v for n, v in one.items() if n != "index"])


def picks(best: Sequence[Mapping[str, Any]], fitness: Mapping[int, float]) -> dict[str, int]:
    """Which genome of a front each rule prefers; `fitness` by the genomes' indices."""
    values = np.array([[value for name, value in one.items() if name != "index"] for one in best], dtype=np.float64)
    of_each = np.array([fitness[one["index"]] for one in best], dtype=np.float64)
    return {name: best[picked(values, of_each, rule, 1)[0]]["index"] for name, rule in RULES.items()}
