"""Carries out what a kind of fitness asks for: members are scored through the scheduler, on each example only once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from evohydra.recipe import Node
from evohydra.scoring.job import Examples, Job, Scores, Verified
from evohydra.searching.fitness.generation import Generation, Judged, Member, OfSources, Requests, Scored, Wanted
from evohydra.searching.guard import Guard
from evohydra.searching.ledger import Ledger, Record
from evohydra.searching.objectives import Objective
from evohydra.searching.scheduler import Pending, Scheduler

Missing = Mapping[str, Sequence[int]]  # places of examples in the search split of each benchmark


@dataclass(frozen=True)
class Scoring:
    """What scores a generation.

    sizes: the number of search examples of each benchmark. sources: scores the source models on all of them when it is
    called, and gives each one's scores. verified: the right answers of likelihoods whose names have a digest of them.
    guard: limits, if there are any.
    """

    scheduler: Scheduler
    sizes: Mapping[str, int]
    objective: Objective = field(default_factory=Objective)
    sources: Callable[[], Sequence[Scores]] = tuple
    verified: Verified = field(default_factory=dict)
    guard: Guard | None = None

    def limited(self, generation: Generation, records: Iterable[Record]) -> Iterator[Record]:
        """The records of a generation with what has to be 0 or more of each limit; as they are without limits.

        Limits are scored of genomes that have a fitness, and once of each recipe: the second one waits for the first.
        """
        if self.guard is None:
            yield from records
            return
        members = {member.index: member for member in generation.members}
        asked = set[str]()
        waiting: deque[tuple[Record, Pending | None]] = deque()
        for record in records:
            twin = record.recipe in asked
            asked.add(record.recipe)
            pending = None if twin else self.of_limits(generation, members[record.index], record)
            waiting.append((record, pending))
            while waiting and (waiting[0][0].fitness is None or (waiting[0][1] and waiting[0][1].evaluation)):
                yield self._with_margins(*waiting.popleft())
        for record, pending in waiting:
            pending = pending or self.of_limits(generation, members[record.index], record)
            yield self._with_margins(record, pending)

    def _with_margins(self, record: Record, pending: Pending | None) -> Record:
        return record if self.guard is None or pending is None else self.guard.limited(self.scheduler, record, pending)

    def of_limits(self, generation: Generation, member: Member, record: Record) -> Pending | None:
        """The numbers that limits are set on, which are being scored; None without limits, or without a fitness."""
        if self.guard is None or record.fitness is None:
            return None
        (pending,) = self.guard.submit(self.scheduler, [(generation.label(member), member.recipe)], "search")
        return pending

    def job(self, recipe: Node, examples: Examples | None) -> Job:
        """A recipe to be scored on examples of the search split (None: all), with the right answers that it takes."""
        named = [(name, places) for name, places in (examples or {}).items() if name in self.verified]
        verified = {name: {place: self.verified[name][place] for place in places} for name, places in named}
        return Job(recipe, "search", examples, verified=verified or None)

    def job_on(self, recipe: Node, examples: Missing) -> Job:
        """The same on these examples, which may be all."""
        everything = {name: len(places) for name, places in examples.items()} == dict(self.sizes)
        return self.job(recipe, None if everything else examples)


class Rounds:
    """The scorings of one generation, round by round; `ledger` holds the records of what was scored before."""

    def __init__(self, generation: Generation, scoring: Scoring, ledger: Ledger) -> None:
        self._members, self._label = generation.members, generation.label
        self._scoring, self._ledger = scoring, ledger
        self._running: Iterator[int] = iter(())  # gives the places of members as soon as these have their scores
        self._scored: set[int] = set()  # of the round that is running
        same: dict[str, list[Member]] = {}
        for member in self._members:
            same.setdefault(member.digest, []).append(member)
        self._twins = [[other for other in same[member.digest] if other is not member] for member in self._members]

    def judged(self, requests: Requests) -> Iterator[Judged]:
        """Answer the requests of a kind of fitness; what it judges is given as soon as it does."""
        answer: object = None
        while True:
            try:
                request = requests.send(answer)
            except StopIteration:
                return
            answer = None
            if isinstance(request, Judged):
                yield request
            elif isinstance(request, Wanted):
                self._begin(request)
                if request.wait:
                    answer = [self._wait(place) for place, _ in request.items]
            elif isinstance(request, Scored):
                answer = self._wait(request.place)
            elif isinstance(request, OfSources):
                answer = self._scoring.sources()
            else:
                raise TypeError(f"a kind of fitness yields requests and judgements, got {request!r}")

    def _wait(self, place: int) -> Member:
        while place not in self._scored:
            scored = next(self._running, None)
            if scored is None:
                raise ValueError(f"a kind of fitness: no scores were wanted for the member at place {place}")
            self._scored.add(scored)
        return self._members[place]

    def _begin(self, wanted: Wanted) -> None:
        """Begin a round. Nothing is scored that the same recipe was scored on before, in this generation or another."""
        for _ in self._running:  # the round before ends first
            pass
        planned: dict[str, dict[str, set[int]]] = {}
        fresh: list[Missing] = []
        for place, examples in wanted.items:
            member = self._members[place]
            for record in self._ledger.same(member.digest):
                member.copy(record, examples)
            for twin in self._twins[place]:
                member.copy(twin, examples)
            claimed = planned.setdefault(member.digest, {})
            missing = {
                name: [p for p in sorted(places) if p not in member.has(name) and p not in claimed.get(name, ())]
                for name, places in examples.items()
            }
            if member.error is not None or not any(missing.values()):
                missing = {}
            for name, places in missing.items():
                claimed.setdefault(name, set()).update(places)
            fresh.append(missing)
        self._scored = set()
        self._running = self._carried_out(wanted.items, fresh)

    def _carried_out(self, items: Sequence[tuple[int, Examples]], fresh: Sequence[Missing]) -> Iterator[int]:
        scheduler = self._scoring.scheduler
        jobs = [self._job(self._members[place], new) for (place, _), new in zip(items, fresh, strict=True) if new]
        submitted = iter(scheduler.submit(jobs))
        for (place, examples), missing in zip(items, fresh, strict=True):
            member = self._members[place]
            if missing:
                member.take(scheduler.result(next(submitted)), missing)
            for twin in self._twins[place]:
                member.copy(twin, examples)
            yield place

    def _job(self, member: Member, examples: Missing) -> tuple[str, Job]:
        return self._label(member), self._scoring.job_on(member.recipe, examples)
