"""Asynchronous search: whenever a worker is free, the optimizer is asked for one genome, and told what has arrived.

What is asked and told is in events.jsonl, in that order. All else follows from it, from the seed and from the scores on
file, so that a search goes on by doing again what it says.
"""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace

import numpy as np

from evohydra.searching.driver import check_not_all_failed
from evohydra.searching.events import Asked, Events, Told
from evohydra.searching.feedback import result, tell_limits
from evohydra.searching.fitness import Staged
from evohydra.searching.fitness.generation import Generation, members_of
from evohydra.searching.kept import Span
from evohydra.searching.ledger import Record
from evohydra.searching.optimizers import Points, StateIsData
from evohydra.searching.optimizers.singles import Values, one_by_one
from evohydra.searching.replay import check_replayed
from evohydra.searching.search_parts import SearchParts
from evohydra.searching.trials import Trial

OPEN = 2  # genomes for each worker that may be asked and not told: some wait for another one with the same recipe


def search_steadily(parts: SearchParts, events: Events, *, ask: bool = False) -> Sequence[Record]:
    """Evaluate `parts.budget` genomes and return their records in the order in which their results were told.

    ask: ask for genomes on file again, also where the state of the optimizer is what it was told.

    Raises SearchError where as many genomes as a population fail one after the other.
    """
    with closing(Steady(parts, events)) as steady:
        steady.replay(ask=ask)
        steady.go_on()
    return parts.ledger.records


class Steady:
    """The state of an asynchronous search, see `search_steadily`."""

    def __init__(self, parts: SearchParts, events: Events) -> None:
        self._parts, self._events = parts, events
        self._space, self._fitness, self._scoring = parts.space, parts.fitness, parts.scoring
        self._ledger, self._budget = parts.ledger, parts.budget
        self._optimizer, self._population = one_by_one(parts.optimizer), parts.optimizer.population
        self._opened = ExitStack()
        self._open: dict[int, Trial] = {}  # by the number of their ask, in that order
        self._asked = 0
        self._since = 0  # the first ask of the optimizer as it is now
        self._settled = 0  # records when the first genome of this population was asked
        self._late: list[tuple[int, Record]] = []  # failures that wait until a genome has a fitness

    def close(self) -> None:
        """Close the optimizers that were made on the way."""
        self._opened.close()

    def replay(self, *, ask: bool = False) -> None:
        """Do again what the events say; LedgerError for one that does not follow from those before it.

        ask: ask for each genome again, also where the state of the optimizer is what it was told.
        """
        for line, event in enumerate(self._events.recorded):
            if isinstance(event, Asked):
                self._renew()
                if ask or not isinstance(self._optimizer, StateIsData):
                    again = self._ask()
                    if again.shape != event.genome.shape or not np.allclose(again, event.genome, rtol=0, atol=1e-12):
                        self._events.refuse(line, "asks for another genome than the optimizer does now")
                self._begin(event.genome)
            elif len(self._ledger.records) == self._budget:
                return
            else:
                trial = self._open[event.number]
                self._tell(trial, self._again(trial))

    def go_on(self) -> None:
        """Ask, score and tell until the budget is spent."""
        while len(self._ledger.records) < self._budget:
            trial = self._judged()
            record = self._record(trial)
            self._events.add(Told(trial.number))
            self._tell(trial, record)
            self._check_failures()

    def _judged(self) -> Trial:
        """The next genome that is judged; waits for one, and keeps all workers busy meanwhile."""
        while True:
            for trial in self._open.values():
                if self._ready(trial):
                    trial.go_on(self._scoring, self._ledger)
                if trial.ended:
                    return trial
            if self._wants_more():
                genome = self._ask()
                self._events.add(Asked(self._asked, genome))
                self._begin(genome)
            else:
                self._scoring.scheduler.wait()

    def _ready(self, trial: Trial) -> bool:
        """Whether it can go on: its job is scored, or it can begin since no earlier genome has the same recipe."""
        if trial.begun:
            return trial.pending is not None and trial.pending.evaluation is not None
        digest = trial.member.digest
        return next(each for each in self._open.values() if each.member.digest == digest) is trial

    def _wants_more(self) -> bool:
        workers = self._scoring.scheduler.executor.workers
        running = sum(trial.works for trial in self._open.values())
        wanted = self._asked < self._budget and running < workers and len(self._open) < OPEN * workers
        if wanted:
            self._renew()
        return wanted

    def _renew(self) -> None:
        """Make the optimizer anew where the kind of fitness wants that, once; it is asked at each new population."""
        fitness, earlier, renewed = self._fitness, self._ledger.so_far, self._parts.renewed
        if self._asked % self._population or self._since or renewed is None or not isinstance(fitness, Staged):
            return
        if fitness.starts_anew(earlier, self._scoring.objective):
            self._optimizer = one_by_one(self._opened.enter_context(closing(renewed())))
            self._since, self._late = self._asked, []

    def _ask(self) -> Values:
        return self._optimizer.ask_one(self._asked - self._since, self._pending())

    def _pending(self) -> Points:
        """(k, dimension), of the optimizer as it is now."""
        pending = [trial.member.genome for trial in self._open.values() if trial.number >= self._since]
        return np.array(pending).reshape(len(pending), len(self._space.names))

    def _begin(self, genome: Values) -> None:
        """A genome that was asked; it goes on when nothing of its recipe is open any more."""
        records, number = self._ledger.records, self._asked
        if number % self._population == 0:
            self._settled = len(records)
        recipe = self._space.decode(genome)
        generation = Generation(
            number // self._population,
            members_of(number, genome[None], [self._space.values(genome)], [recipe]),
            self._scoring.sizes,
            self._scoring.objective,
            self._ledger.so_far,
            single=True,
            peers=Span(records, max(0, len(records) - self._population), len(records)),
            settled=self._settled,
        )
        self._open[number] = Trial(number, generation, self._fitness(generation))
        self._asked += 1

    def _again(self, trial: Trial) -> Record:
        """The record of a genome whose result was told: that on file, or made again from its scores."""
        known = self._ledger.on_file(trial.member.genome[None])
        if known is not None:
            check_replayed(trial.generation, known, self._fitness, self._scoring, self._ledger, cut=False)
            return known[0]
        while not trial.ended:
            if trial.works and (trial.pending is None or trial.pending.evaluation is None):
                self._scoring.scheduler.wait()
            else:
                trial.go_on(self._scoring, self._ledger)
        return self._record(trial)

    def _record(self, trial: Trial) -> Record:
        """The next line of the ledger, of a genome of which all is known."""
        record, scoring = trial.record, self._scoring
        assert record is not None
        if scoring.guard is not None and trial.limits is not None:
            record = scoring.guard.limited(scoring.scheduler, record, trial.limits)
        return replace(record, index=len(self._ledger.records))

    def _tell(self, trial: Trial, record: Record) -> None:
        del self._open[trial.number]
        self._ledger.add(record)
        for observe in self._parts.observers:
            observe(self._ledger.records[-1])
        if trial.number < self._since:  # asked by the optimizer before this one
            return
        self._late.append((trial.number - self._since, record))
        if record.fitness is None and all(each.fitness is None for each in self._ledger.records):
            return  # how bad a failure is says the worst genome that has a fitness
        for number, each in self._late:
            self._optimizer.tell_one(number, result(self._optimizer, each, self._ledger.records))
            tell_limits(self._optimizer, [each], self._ledger.records)
        self._late = []

    def _check_failures(self) -> None:
        """SearchError where the last results, as many as a population, are failures; see `check_not_all_failed`."""
        records, failed = self._ledger.records, 0
        while failed < len(records) and records[-1 - failed].fitness is None:
            failed += 1
        if failed == 0 or failed % max(2, self._population):
            return
        while self._scoring.scheduler.waits:
            self._scoring.scheduler.wait()
        last = list(records[-failed:])
        told = [(at, event.number) for at, event in enumerate(self._events.recorded) if isinstance(event, Told)]
        labels = {f"genome asked {number}" for _, number in told[-failed:]}
        which = f"the last {failed} that were scored" if failed < len(records) else f"the first {failed}"
        try:
            check_not_all_failed(which, last, labels, self._space, self._scoring, self._ledger)
        finally:
            if len(self._ledger.records) == last[0].index:  # these failures are not kept
                self._events.cut(told[-failed][0])
