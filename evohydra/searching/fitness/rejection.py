"""Broken genomes stop early: those that score nothing on the first few examples, where others do score."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Lt

from evohydra.checks import Count, check_settings
from evohydra.files import Plain
from evohydra.scoring.job import Examples
from evohydra.searching.fitness.generation import Generation, Judged, Member, Requests, Scored, Wanted
from evohydra.searching.fitness.order import Example, beginning, by_benchmark
from evohydra.searching.kept import Span
from evohydra.searching.ledger import Record, Records


@dataclass(frozen=True)
class Rejection:
    """A genome is rejected after its first `after` examples if all its scores are the lowest ones seen in the run, and

    - its answers could not be a working model's (a benchmark says so: all empty, all the same), or
    - a genome that answers each of them as often as the average genome would score nothing with a chance below `risk`.

    So a genome of average strength or above is rejected by accident with a chance of at most `risk`; a weaker one is,
    more often, with a fitness of its few examples. Where most genomes fail on most examples, nothing is rejected.
    """

    after: Count = 8
    risk: Annotated[float, Gt(0), Lt(1)] = 0.01

    def __call__(self, generation: Generation, order: Sequence[Example]) -> Generator[Wanted, object, dict[int, str]]:
        """Have all members scored on the first examples of `order`; the places of those to reject, with the reason."""
        count = beginning(order, min(self.after, len(order)))
        probe = by_benchmark(order[:count])
        yield Wanted([(place, probe) for place in range(len(generation.members))])
        low, chance = _lowest(generation), _chance_of_nothing(generation, probe)
        rejected = {}
        for place, member in enumerate(generation.members):
            if member.error is not None or not _scores_nothing(member, probe, low):
                continue
            if member.broken is not None:
                rejected[place] = f"rejected after {count} examples: {member.broken}"
            elif chance < self.risk:
                rejected[place] = f"rejected after {count} examples: no score on any of them"
        return rejected


def rejection(settings: Plain | None) -> Rejection | None:
    """The rejection with these settings; ValueError for keys that it has not."""
    check_settings("fitness.reject", Rejection, settings or {})
    return None if settings is None else Rejection(**settings)


def judged_on(
    generation: Generation, examples: Examples, order: Sequence[Example], reject: Rejection | None
) -> Requests:
    """Judge all members on `examples`, each as soon as it is scored, but those that `reject` finds broken.

    These have scores on the first ones of `order` alone.
    """
    rejected = (yield from reject(generation, order)) if reject else {}
    spared = [place for place in range(len(generation.members)) if place not in rejected]
    yield Wanted([(place, examples) for place in spared], wait=False)
    for place in range(len(generation.members)):
        if place not in rejected:
            yield Scored(place)
        yield Judged(place, note=rejected.get(place))


def _lowest(generation: Generation) -> dict[str, float]:
    """The lowest score on each benchmark that a genome has had so far."""
    low: dict[str, float] = {}
    for name in generation.sizes:
        now = [min(member.has(name).values()) for member in generation.members if member.has(name)]
        before = _lowest_of(generation.earlier, name)
        low[name] = min(now if before is None else [*now, before], default=0.0)
    return low


def _lowest_of(records: Sequence[Record], name: str) -> float | None:
    if isinstance(records, Span) and isinstance(records.whole, Records) and records.first == 0:
        return records.whole.lowest(name, len(records))  # without a look at each
    return min((min(record.scores[name]) for record in records if record.scores.get(name)), default=None)


def _scores_nothing(member: Member, probe: Examples, low: Mapping[str, float]) -> bool:
    return all(member.scores[name][place] <= low[name] for name, places in probe.items() for place in places)


def _chance_of_nothing(generation: Generation, probe: Examples) -> float:
    """That a genome scores nothing on `probe` if it scores on each example as often as members of this generation.

    Of an asynchronous search: as often as it and the genomes that it is compared with, as far as they were asked.
    """
    low = _lowest(generation)
    alive = [member.scores for member in generation.members if member.error is None]
    alive += [record.by_place() for record in generation.peers if record.scores]
    chance = 1.0
    for name, places in probe.items():
        for place in places:
            values = [scores[name][place] for scores in alive if place in scores.get(name, ())]
            chance *= 1 - sum(value > low[name] for value in values) / max(1, len(values))
    return chance
