"""Examples are added while it is open which genomes are in the better half of their generation.

Races are due to Maron and Moore (Hoeffding races, 1994); Heidrich-Meisner and Igel (2009) ran them for the selection of
CMA-ES. Here pairs of genomes are compared on the same examples, by bets (see `betting`) instead of Hoeffding's bound.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Lt
from numpy.typing import NDArray

from evohydra.checks import Count
from evohydra.searching.fitness import Sizes
from evohydra.searching.fitness.betting import surely_above
from evohydra.searching.fitness.expected import Between, Course, Expected
from evohydra.searching.fitness.generation import Generation, Judged, Member, Requests, Wanted
from evohydra.searching.fitness.order import (
    Example,
    beginning,
    by_benchmark,
    check,
    say_where_fewer,
    shuffled,
    weight_of,
)
from evohydra.searching.fitness.rejection import rejection
from evohydra.searching.ledger import Record
from evohydra.searching.objectives import Objective

Array = NDArray[np.float64]
NEEDS_GENERATIONS = (
    "fitness.fresh: expected false with search=steady, where a genome races against those before it on the same "
    "examples, got true"
)


class Racing:
    """Scores the members on `first` examples, and those whose place is open on more, `growth` times as many each time.

    The selected are the `survivors` best so far (null: half of the generation). A member's place is open while one on
    the other side of the boundary may still be better than the selected of the two by `margin` or more: not until a bet
    against it, which may look at each example, has won at odds of 1 / `delta`.

    Guarantee: of two given genomes of which one is better by `margin` or more on the whole search split, the race finds
    the other one to be its equal with a probability of at most `delta`; so among n genomes no one who is selected is
    worse than one who is not by `margin`, but with a probability of at most delta n (n - 1) / 2. It holds for scores
    within `bounds` and examples in random order, whatever the scores. With margin=0 the open ones get all examples.

    Fitness is the score on all examples, estimated: of what the member scored above the members with the most examples,
    on the same examples, added to their score. So is the mean of each benchmark, which objectives are made of where
    there are several. Orders are `fresh` in each generation, or the same for the whole run.

    In an asynchronous search a genome races alone, on the order of the run (`fresh` has to be false): against the
    latest ones that were told before it was asked, as many as a population. These have the scores that they have. It
    gets more examples while it is open in which half of them and itself it is, but not more than one step beyond those
    that it cannot be told from; so races are long where the best ones are alike. For two genomes the guarantee holds.
    """

    same_examples, comparable = False, True

    def __init__(
        self,
        *,
        sizes: Sizes,
        seed: int,
        first: Count,
        growth: Annotated[float, Gt(1)],
        delta: Annotated[float, Gt(0), Lt(1)],
        margin: Annotated[float, Ge(0)],
        most: Count | None = None,
        survivors: Count | None = None,
        bounds: Sequence[float] = (0.0, 1.0),
        fresh: bool = True,
        reject: Mapping[str, object] | None = None,
    ) -> None:
        check(most is None or most >= first, "most", "null, or as many as fitness.first or more", most)
        check(len(bounds) == 2 and bounds[0] < bounds[1], "bounds", "the lowest and the highest score", bounds)
        self._sizes, self._seed, self._fresh, self._bounds = sizes, seed, fresh, tuple(bounds)
        self._delta, self._margin, self._survivors = delta, margin, survivors
        self._total = sum(sizes.values())
        say_where_fewer({" and ".join(sizes): self._total}, "first", first)
        end = self._total if most is None else min(most, self._total)
        self._levels = [min(first, end)]
        while self._levels[-1] < end:
            self._levels.append(math.ceil(min(end, self._levels[-1] * growth)))
        self._reject = rejection(reject)
        self.needs_generations = NEEDS_GENERATIONS if fresh else None

    def expected(self, course: Course) -> Expected:
        """How long races are depends on how much genomes differ: the geometric mean of the shortest and the longest."""
        least, most = self._levels[0] / self._total, self._levels[-1] / self._total
        share = Between(least, math.sqrt(least * most), most)
        return Expected({name: share.times(size * course.genomes) for name, size in self._sizes.items()})

    def __call__(self, generation: Generation) -> Requests:
        """Race the members; all are judged at the end."""
        if generation.single:
            yield from self._alone(generation)
            return
        order = shuffled(self._sizes, self._seed, generation.number if self._fresh else None)
        levels = [level for level in self._levels if level > (least := beginning(order, self._levels[0]))]
        rejected = (yield from self._reject(generation, order)) if self._reject else {}
        seen = {place: 0 for place in range(len(generation.members)) if place not in rejected}
        wanted = dict.fromkeys(seen, least)
        fitness: dict[int, float] = {}
        errors: dict[int, float] = {}
        means: dict[int, dict[str, float]] = {}
        while wanted:
            examples = {level: by_benchmark(order[:level]) for level in set(wanted.values())}
            for member in (yield Wanted([(place, examples[level]) for place, level in wanted.items()])):
                self._check_bounds(member)
            seen |= wanted
            seen = {place: level for place, level in seen.items() if generation.members[place].error is None}
            race = self._race({place: generation.members[place].scores for place in seen}, generation, order, seen)
            selected = race.best(self._survivors or len(generation.members) // 2)
            wanted = self._wanted(race, seen, selected, levels)
            (fitness, errors), means = race.estimates(), race.means()
        for place in range(len(generation.members)):
            estimated = seen.get(place, self._total) < self._total
            yield Judged(
                place,
                fitness[place] if estimated else None,
                errors[place] if estimated else None,
                rejected.get(place),
                means[place] if estimated else None,
            )

    def _alone(self, generation: Generation) -> Requests:
        """Race the only member, at place 0, against the genomes that it is compared with, at the places behind it."""
        order = shuffled(self._sizes, self._seed, None)
        levels = [level for level in self._levels if level > (least := beginning(order, self._levels[0]))]
        rejected = (yield from self._reject(generation, order)) if self._reject else {}
        wanted = 0 if rejected else least
        others = {place: record.by_place() for place, record in enumerate(_alive(generation.peers), 1)}
        depths = {place: _depth(scores, order) for place, scores in others.items()}
        deep = {place: depth for place, depth in depths.items() if depth >= least}
        judged = Judged(0, note=rejected.get(0))
        while wanted:
            (member,) = yield Wanted([(0, by_benchmark(order[:wanted]))])
            self._check_bounds(member)
            if member.error is not None:
                break
            seen = {0: wanted, **deep}
            race = self._race({0: member.scores, **others}, generation, order, seen)
            best = race.best(self._survivors or len(seen) // 2)
            selected, behind = ([0], [place for place in seen if place not in best]) if 0 in best else (best, [0])
            if wanted < self._total:
                fitness, errors = race.estimates()
                judged = Judged(0, fitness[0], errors[0], None, race.means()[0])
            else:
                judged = Judged(0)
            wanted = self._wanted(race, seen, selected, levels, behind).get(0, 0)
        yield judged

    def _race(
        self,
        scores: Mapping[int, Mapping[str, Mapping[int, float]]],
        generation: Generation,
        order: Sequence[Example],
        seen: Mapping[int, int],
    ) -> "Race":
        return Race(scores, generation.objective, generation.sizes, order, seen)

    def _wanted(
        self,
        race: "Race",
        seen: Mapping[int, int],
        selected: Sequence[int],
        levels: Sequence[int],
        behind: Sequence[int] | None = None,
    ) -> dict[int, int]:
        """How many examples the members whose place is open get next; `behind`: those that are not selected."""
        others = [place for place in seen if place not in selected] if behind is None else behind
        wanted: dict[int, int] = {}
        for common in {min(seen[one], seen[other]) for one in selected for other in others}:
            pairs = [(a, b) for a in selected for b in others if min(seen[a], seen[b]) == common]
            differences = np.array([race.values(a)[:common] - race.values(b)[:common] for a, b in pairs])
            reach = race.largest * (self._bounds[1] - self._bounds[0])
            settled = surely_above(differences, self._total, reach, self._margin, self._delta)
            further = next((level for level in levels if level > common), common)
            for pair in (pair for pair, done in zip(pairs, settled, strict=True) if not done):
                for place in pair:
                    if seen[place] < further:
                        wanted[place] = max(further, wanted.get(place, 0))
        return dict(sorted(wanted.items()))

    def _check_bounds(self, member: Member) -> None:
        low, high = self._bounds
        for name, scores in member.scores.items():
            for value in scores.values():
                if not low <= value <= high and math.isfinite(value):
                    raise ValueError(
                        f"fitness.bounds: expected scores between {low} and {high}, but benchmark {name!r} gave "
                        f"{value}; set fitness.bounds=[LOWEST,HIGHEST], or choose fitness=full"
                    )


def _alive(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.scores]


def _depth(scores: Mapping[str, Mapping[int, float]], order: Sequence[Example]) -> int:
    """How many of the first examples of an order there are scores on."""
    return next((at for at, (name, place) in enumerate(order) if place not in scores.get(name, ())), len(order))


class Race:
    """The weighted scores of members on the first examples of an order; their mean over all examples is the fitness."""

    def __init__(
        self,
        scores: Mapping[int, Mapping[str, Mapping[int, float]]],
        objective: Objective,
        sizes: Mapping[str, int],
        order: Sequence[Example],
        seen: Mapping[int, int],
    ) -> None:
        weights = weight_of(objective, sizes)
        total = len(order)
        factor = {name: weights[name] * total / size for name, size in sizes.items()}
        self.largest = max(map(abs, factor.values()))
        self._total, self._seen = total, seen
        self._names = np.array([name for name, _ in order])
        self._scores: dict[int, Array] = {
            place: np.array([scores[place][name][at] for name, at in order[:level]]) for place, level in seen.items()
        }
        factors = np.array([factor[name] for name, _ in order])
        self._values: dict[int, Array] = {
            place: scores * factors[: len(scores)] for place, scores in self._scores.items()
        }

    def values(self, place: int) -> Array:
        """(seen,) weighted scores of the member at `place`."""
        return self._values[place]

    def estimates(self) -> tuple[dict[int, float], dict[int, float]]:
        """The fitness of each member on all examples, and its standard error."""
        reference = self._reference(self._values)
        fitness, errors = {}, {}
        for place, level in self._seen.items():
            above = self._values[place] - reference[:level]
            fitness[place] = float(above.mean() + reference.mean())
            errors[place] = math.sqrt(self._variance(above) + self._variance(reference))
        return fitness, errors

    def means(self) -> dict[int, dict[str, float]]:
        """The mean score on all examples of each benchmark of each member, estimated in the same way."""
        reference = self._reference(self._scores)
        names = self._names[: len(reference)]
        return {
            place: {
                str(name): float(
                    (self._scores[place] - reference[:level])[names[:level] == name].mean()
                    + reference[names == name].mean()
                )
                for name in dict.fromkeys(names)
            }
            for place, level in self._seen.items()
        }

    def _reference(self, values: Mapping[int, Array]) -> Array:
        """(seen,) the mean over the members with the most examples."""
        furthest = max(self._seen.values(), default=0)
        deep = [values[place] for place, level in self._seen.items() if level == furthest]
        reference: Array = np.mean(deep, axis=0) if deep else np.empty(0)
        return reference

    def best(self, count: int) -> list[int]:
        """The places of the `count` best so far."""
        fitness, _ = self.estimates()
        return sorted(fitness, key=lambda place: (-fitness[place], place))[:count]

    def _variance(self, values: Array) -> float:
        """Of the mean of these, drawn from all without replacement; smoothed, for equal ones tell of no variance 0."""
        count = len(values)
        spread = (float(((values - values.mean()) ** 2).sum()) + 0.25) / count
        return spread / count * (1 - count / self._total)
