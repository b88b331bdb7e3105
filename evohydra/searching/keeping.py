"""Which genomes of a search are sources of the next one (generations_keep)."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evohydra.recipe import Checkpoint, Node, Stack, digest
from evohydra.searching.feasible import that_count
from evohydra.searching.fitness import Fitness, SameOfEachKind
from evohydra.searching.fitness.likelihood_scale import is_likelihood
from evohydra.searching.handed_on import Rule
from evohydra.searching.ledger import Record
from evohydra.searching.optimizers.m2n2 import competition


def kept(records: Sequence[Record], rule: Rule, count: int) -> list[Record]:
    """At most `count` different recipes of a search, the best first.

    best: those of the highest fitness. diverse: after the best one always that which adds most to what is solved, the
    mean over examples of the best score of those that are kept. niche: those that are left when the one that gets least
    leaves, again and again: each example is shared by those that solve it (arXiv 2508.16204, equation 2). Where a
    search went by log-likelihoods and scored some genomes by the metric, these alone are looked at. ValueError where
    genomes were scored on different examples, unless the rule is best.
    """
    found = _different(records)
    if rule == "best" or len(found) < 2:
        return found[:count]
    scores = _by_example(found)
    places = _niches(scores, count) if rule == "niche" else _complements(scores, count)
    return [found[place] for place in places]


def check_rule(rule: Rule, fitness: Fitness) -> None:
    """ValueError for a rule that compares example by example, where genomes are scored on different examples."""
    same = fitness.same_examples or (isinstance(fitness, SameOfEachKind) and fitness.same_of_each_kind)
    if rule != "best" and not same:
        kind = type(fitness).__name__.lower()
        raise ValueError(
            f"generations_keep={rule}: expected a kind of fitness that scores all genomes on the same examples, which "
            f"this rule compares; got {kind}; choose fitness=full or likelihood, or generations_keep=best"
        )


def _different(records: Sequence[Record]) -> list[Record]:
    """Different recipes that were scored in the same way, the best first."""
    scored = list(that_count(records))
    by_metric = [record for record in scored if not is_likelihood(record.scores)]
    different: dict[str, Record] = {}
    for record in sorted(by_metric or scored, key=lambda record: (-_surely(record), record.index)):
        different.setdefault(record.recipe, record)
    return list(different.values())


def _surely(record: Record) -> float:
    assert record.fitness is not None
    return record.fitness - (record.error_bar or 0.0)


def _by_example(records: Sequence[Record]) -> NDArray[np.float64]:
    """(genomes, examples): scores, from which the lowest of each example is taken where there are negative ones.

    Each benchmark counts the same, whatever the number of its examples.
    """
    placed = [record.by_place() for record in records]
    places = {name: set(each) for name, each in placed[0].items()}
    names = [name for name in places if all(set(each.get(name, ())) == places[name] for each in placed)]
    if not names:
        raise ValueError(
            "generations_keep: expected genomes that were all scored on the same examples; choose fitness=full, or "
            "generations_keep=best"
        )
    scores = np.array(
        [[each[name][at] / len(places[name]) for name in names for at in sorted(places[name])] for each in placed]
    )
    positive: NDArray[np.float64] = scores - np.minimum(scores.min(axis=0), 0.0)
    return positive


def _complements(scores: NDArray[np.float64], count: int) -> list[int]:
    """The first row, then always the one that adds most to the best score of each example; ties go to the better."""
    chosen = [0]
    while len(chosen) < min(count, len(scores)):
        covered = scores[chosen].max(axis=0)
        added = np.maximum(scores - covered, 0.0).sum(axis=1)
        added[chosen] = -1.0
        chosen.append(int(np.argmax(added)))
    return chosen


def _niches(scores: NDArray[np.float64], count: int) -> list[int]:
    left = list(range(len(scores)))
    while len(left) > count:
        least = competition(scores[left], 1.0).sum(axis=1)
        worst = len(left) - 1 - int(np.argmin(least[::-1]))  # of equal ones the last, which is not better
        del left[worst]
    return left


def parents(recipe: Node, sources: Mapping[str, Node]) -> dict[str, float]:
    """How much of a recipe comes from each of the `sources`, by name; the shares sum to 1.

    Of a merge by the magnitude of its weights, the mean over groups (by equal parts where its method has none), of a
    path by hops. Sources that have no part are left out.
    """
    found = _shares(recipe, {digest(node): name for name, node in sources.items()})
    total = sum(found.values())
    return {name: found[name] / total for name in sources if found.get(name)} if total else {}


def _shares(node: Node, names: Mapping[str, str]) -> dict[str, float]:
    if (name := names.get(digest(node))) is not None:
        return {name: 1.0}
    if isinstance(node, Checkpoint):
        return {}
    if isinstance(node, Stack):
        parts = [(sum(hop.source == at for hop in node.hops), source) for at, source in enumerate(node.sources)]
    else:
        weights = [np.abs(group.parameters.get("weight", 1.0)) * np.ones(len(node.models)) for group in node.groups]
        parts = list(zip(np.mean(weights, axis=0) if weights else np.ones(len(node.models)), node.models, strict=True))
    total = float(sum(part for part, _ in parts)) or 1.0
    found: dict[str, float] = {}
    for part, child in parts:
        for name, share in _shares(child, names).items():
            found[name] = found.get(name, 0.0) + float(part) / total * share
    return found
