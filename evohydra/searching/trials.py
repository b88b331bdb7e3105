"""One genome of an asynchronous search, from its ask to its judgement; nothing here waits for scores."""

from dataclasses import dataclass, field

from evohydra.scoring.job import Examples, Job
from evohydra.searching.fitness.generation import Generation, Judged, Member, OfSources, Requests, Scored, Wanted
from evohydra.searching.ledger import Ledger, Record
from evohydra.searching.rounds import Scoring
from evohydra.searching.scheduler import Pending


@dataclass
class Trial:
    """Genome `number` of the asks, the only member of its generation, and what it waits for.

    pending: its job, and `missing` the examples of that. record: what it is judged to be; limits: the job of its
    limits, which is open then.
    """

    number: int
    generation: Generation
    requests: Requests
    begun: bool = False
    judged: Judged | None = None
    pending: Pending | None = None
    missing: dict[str, list[int]] = field(default_factory=dict)
    record: Record | None = None
    limits: Pending | None = None

    @property
    def member(self) -> Member:
        """The genome."""
        return self.generation.members[0]

    @property
    def ended(self) -> bool:
        """Whether all of it is known."""
        return self.record is not None and (self.limits is None or self.limits.evaluation is not None)

    @property
    def works(self) -> bool:
        """Whether a job of it is open, or scored and not yet taken over."""
        return self.pending is not None or (self.record is not None and not self.ended)

    def go_on(self, scoring: Scoring, ledger: Ledger) -> None:
        """Carry on until the genome is judged, and its limits are asked for, or until a job of it is open.

        Nothing is scored that the same recipe was scored on before. Others of its recipe that were asked earlier have
        their records in the ledger.
        """
        answer: object = None
        if self.pending is not None:
            if not self._taken():
                return
            answer = [self.member]
        self.begun = True
        while True:
            try:
                request = self.requests.send(answer)
            except StopIteration:
                assert self.judged is not None
                self.record = self.generation.record(self.judged)
                self.limits = scoring.of_limits(self.generation, self.member, self.record)
                return
            answer = None
            if isinstance(request, Judged):
                self.judged = request
            elif isinstance(request, Scored):
                answer = self.member
            elif isinstance(request, OfSources):
                answer = scoring.sources()
            elif isinstance(request, Wanted):
                for _, examples in request.items:
                    self._submit(examples, scoring, ledger)
                if not self._taken():
                    return
                answer = [self.member for _ in request.items]
            else:
                raise TypeError(f"a kind of fitness yields requests and judgements, got {request!r}")

    def _taken(self) -> bool:
        """Whether no job is open; the scores of one that is done are taken over."""
        if self.pending is not None:
            if self.pending.evaluation is None:
                return False
            self.member.take(self.pending.evaluation, self.missing)
            self.pending = None
        return True

    def _submit(self, examples: Examples, scoring: Scoring, ledger: Ledger) -> None:
        """Have the member scored on those of `examples` that its recipe was not scored on before."""
        member = self.member
        for record in ledger.same(member.digest):
            member.copy(record, examples)
        missing = {name: [p for p in sorted(places) if p not in member.has(name)] for name, places in examples.items()}
        if member.error is not None or not any(missing.values()):
            return
        everything = {name: len(places) for name, places in missing.items()} == dict(self.generation.sizes)
        job: Job = scoring.job(member.recipe, None if everything else missing)
        self.missing = missing
        (self.pending,) = scoring.scheduler.submit([(self.generation.label(member), job)], whole=True)
